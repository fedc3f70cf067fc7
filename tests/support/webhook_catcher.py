"""`dop webhook serve` as a process beside runs."""

from __future__ import annotations

import subprocess

from tests.support.cli_driver import DOP, Dop


def serving(dop: Dop) -> subprocess.Popen[str]:
    """The receiver of the ledger and the gateway of `dop`; its first line on stdout is its address."""
    words = ["webhook", "serve", "--set", "webhook.listen=127.0.0.1:0", "--outputs", str(dop.outputs)]
    process = subprocess.Popen(
        [str(DOP), *words],
        cwd=dop.folder,
        env=dop.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    dop.started.append(process)
    return process
