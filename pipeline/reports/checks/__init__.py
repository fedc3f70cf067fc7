"""Clip checks: a gate for defects and a key to sort by, never a verdict on beauty.

`findings` has the words and results, `check` checks one clip, `pool` many at a time, `run_checks` those of a run,
`store` keeps the results. Only `check`, `worker` and what they import need numpy and the decoder.
"""
