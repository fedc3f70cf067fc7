"""The gateway's room: what it is told, what it answers, and what that answer means for our money.

`wire` knows the API's JSON, `client` makes one HTTP call, `verdict` judges what came back. No file of this room decides
by itself to send something a second time.
"""
