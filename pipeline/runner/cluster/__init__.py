"""Several machines, one account: workers that share a ledger in PostgreSQL, one pace and one queue.

The ledger alone says what is bought; the queue is disposable and is rebuilt from it. Nothing here is imported unless
a cluster is asked for. Must never: decide what a request's outcome is (the steps do), or pay without the ledger.
"""
