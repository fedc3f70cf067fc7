"""What a run says about itself: tables, the summary, the progress line and the contact sheet.

table.py     one line per attempt: CSV and JSON Lines
frame.py     the same as a data frame and as Parquet
junit.py     the same for a CI server
summary.py   the one line at the end and run.json
progress.py  the bar on a terminal, one plain line a minute elsewhere
sheet.py     the contact sheet; runview.py is what it is told, axes.py, cells.py and charts.py what it shows
posters.py   still pictures beside the clips
gridvideo.py, contactprint.py   the sheet as one video or one picture to send

Reads records only. Never decides a state, never counts money by another rule than the records' own, and never opens the
ledger.
"""
