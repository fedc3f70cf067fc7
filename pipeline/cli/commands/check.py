"""`check`: finds defects in the clips of a run. Nothing is sent or spent, and no state changes."""

from __future__ import annotations

import argparse

from pipeline.cli.arguments import print_json, print_notice, settings_of
from pipeline.errors import ExitCode
from pipeline.ledger.workspace import open_for_reading
from pipeline.reports.checks.findings import Grade
from pipeline.reports.run_folder import RunFolder
from pipeline.reports.run_lookup import find_run
from pipeline.reports.summary import checks_line
from pipeline.reports.writer import checks_of, write_page, write_reports


def check(args: argparse.Namespace) -> int:
    """Checks what has no result, writes the reports again and names every clip with a finding.

    Exit code 1 when a clip is bad for a kind of `checks.fail_on`.
    """
    settings = settings_of(args)
    from pipeline.reports.checks.check_run import check_rows, check_run

    with open_for_reading(settings) as workspace:
        run = find_run(workspace, args.run)
        check_run(workspace, run, again=args.again, show_bar=not args.no_progress)
        found = checks_of(workspace, run)
        folder = RunFolder(workspace.outputs, run.run_id)
        if folder.path.is_dir():
            write_reports(workspace, run, folder)
            print_notice(note.text for note in write_page(workspace, run, folder) if note.is_wrong)
        rows = check_rows(workspace, run, found)
    if args.json:
        print_json({"run": run.run_id, "checks": found.counts(), "clips": rows})
    else:
        for row in rows:
            if row["check"] != Grade.OK:
                print(f"{row['check']}: {row['row_id']} {row['local_path']} ({row['said']})")
        print(checks_line(found.counts()) or "checks: no clip to check")
    return ExitCode.FAILED if found.failing(settings.checks.fail_on) else ExitCode.DONE
