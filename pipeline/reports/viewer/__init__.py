"""The local web server of `dop view`: runs, money and contact sheets in a browser of this machine, also during a run.

Read only apart from reviews. It listens on 127.0.0.1, reads the ledger without its lock, and must never send
anything, know the gateway's key, or show a file that is no part of a run.
"""
