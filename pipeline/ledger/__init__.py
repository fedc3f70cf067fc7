"""The durable record of every request and every cent: states, budget caps, the writer, SQLite and PostgreSQL."""
