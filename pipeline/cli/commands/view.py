"""`view`: the runs of a ledger in the browser, until Ctrl-C. It sends, buys and locks nothing."""

from __future__ import annotations

import argparse
import asyncio
import html
import os
import shutil
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path

from pipeline.cli.arguments import print_notice, settings_of
from pipeline.errors import UsageError
from pipeline.files import temporary_folder
from pipeline.ledger.workspace import OpenLedger, ledger_exists, ledger_name, open_for_reading
from pipeline.reports.review_file import reviewer_name
from pipeline.reports.run_lookup import find_run
from pipeline.reports.viewer.server import Viewer
from pipeline.runner.signals import handled_signals


def view(args: argparse.Namespace) -> int:
    """Serves the contact sheets on 127.0.0.1 and opens one; its address is the first line of stdout."""
    settings = settings_of(args)
    if not ledger_exists(settings):
        raise UsageError(f"no run yet in {ledger_name(settings)}; `dop run MANIFEST` makes one")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}: give a number from 1 to 65535")
    reviewer = reviewer_name(args.reviewer)
    with open_for_reading(settings) as workspace:
        run = find_run(workspace, args.run)
        asyncio.run(_serve(workspace, run.run_id, port=args.port, opens=not args.no_open, reviewer=reviewer))
    return 0


async def _serve(workspace: OpenLedger, run_id: str, *, port: int, opens: bool, reviewer: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in handled_signals():
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    viewer = Viewer(workspace, reviewer=reviewer)
    address = f"{await viewer.start(port)}runs/{run_id}/"
    try:
        print(address, flush=True)
        print_notice(["only this machine's own browser can see it; Ctrl-C ends it"])
        # Under a lock of this process: a later command removes the folder if this one is killed.
        folder, lock = temporary_folder()
        try:
            if opens:
                page = redirect_page(folder, address)
                # A browser of the terminal would hold the thread until it is closed.
                threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
            await stop.wait()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    finally:
        await viewer.stop()


def redirect_page(folder: Path, address: str) -> Path:
    """A page for this user alone that leads the browser to `address`.

    The browser gets its path as an argument, which every user of the machine can read; the address holds the token.
    """
    page = folder / "open.html"
    link = html.escape(address, quote=True)
    handle = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(
            '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0; url={link}"><title>dop view</title><a href="{link}">the run</a>\n'
        )
    return page
