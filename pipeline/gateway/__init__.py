"""The remote API: requests, responses, and what a response means for the money.

`wire` holds the API's JSON, `client` makes one HTTP call, `classification` decides what a response means. No module of
this package sends a paid call a second time.
"""
