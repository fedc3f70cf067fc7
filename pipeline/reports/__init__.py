"""Reports of a run: tables, the summary, the progress line and the contact sheet.

tables.py     one line per attempt: CSV and JSON Lines
dataframe.py  the same as a data frame and as Parquet
junit.py      the same for a CI server
summary.py    the line at the end and run.json
progress.py   the bar on a terminal, one plain line a minute elsewhere
sheet/        the contact sheet; run_view.py is its input, layout.py, cells.py and charts.py what it shows
viewer/       the local server of `dop view`

It never decides a state and counts no money by a rule other than that of pipeline/records.py.
"""
