"""What was bought: states and events (lifecycle), caps (budget), judged batches (judge), the durable book (store)."""
