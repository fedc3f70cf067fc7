"""Synthetic clips, good and broken, for the benchmark of the clip checks. Shares no code with the sandbox."""
