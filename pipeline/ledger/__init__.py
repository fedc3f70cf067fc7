"""What was bought: states and events (lifecycle), caps (budget), and the durable book of both (store)."""
