"""`doctor`: what the user should know before spending: settings, key, ledger, disk, clock."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pipeline.cli.arguments import ask_to_trust, print_json, settings_of
from pipeline.cli.check_result import CheckResult
from pipeline.cli.commands.ledger import unfit
from pipeline.config.key_origins import KeyOrigins, may_receive_key, refusal, state_folder
from pipeline.config.loader import Settings, effective, gateway_id, read_key
from pipeline.config.network import network_environment
from pipeline.errors import DopError, ExitCode
from pipeline.files import existing_folder
from pipeline.gateway.connection_probe import connection_problem
from pipeline.gateway.kinds import kind_of
from pipeline.ledger.workspace import ledger_exists, ledger_name, opened
from pipeline.records import counted
from pipeline.reports.progress import strip_control_chars
from pipeline.reports.run_ending import money_words
from pipeline.reports.run_tables import table
from pipeline.runner.credentials import resolve_api_key

LOW_DISK_BYTES = 1_000_000_000
"""Bytes of free space (1 GB) below which `dop doctor` warns: room for some hundred clips."""
MIN_CLOCK_S = 1_750_000_000
"""A moment of June 2025: a clock before it is wrong, and daily budgets would be too."""

KEY_REMEDY = "`dop key set` stores it; your account page at the gateway shows it"
DISK_REMEDY = "make room, or choose another folder with --outputs"


def doctor(args: argparse.Namespace) -> int:
    """Checks everything that can be checked without spending; exit 0 when nothing is wrong, 7 otherwise."""
    settings = settings_of(args)
    findings = list(_findings(settings, live=args.live))
    values = list(effective(settings))
    bad = [finding for finding in findings if finding.ok is False]
    if args.json:
        print_json(
            {
                "ok": not bad,
                "checks": [asdict(one) for one in findings],
                "settings": {key: {"value": value, "source": source} for key, value, source in values},
            }
        )
    else:
        for one in findings:
            word = {True: "ok", False: "WRONG", None: "not checked"}[one.ok]
            print(f"{word:<12} {one.name}: {strip_control_chars(one.text)}")
            if one.remedy and not one.ok:
                print(f"{'':<12} -> {one.remedy}")
        print(f"\n{counted(len(bad), 'problem') if bad else 'nothing is wrong'}", end="")
        print("" if args.settings else f"; {len(values)} settings: dop doctor --settings")
        if args.settings:
            print("\n" + "\n".join(table(("SETTING", "VALUE", "FROM"), values)))
    return ExitCode.FATAL if bad else ExitCode.DONE


def _findings(settings: Settings, *, live: bool) -> Iterator[CheckResult]:
    yield _gateway(settings)
    yield from _network(settings)
    yield _key(settings)
    yield from _ledger(settings)
    yield _disk(settings)
    clock_ok = time.time() > MIN_CLOCK_S
    yield CheckResult(
        name="clock", ok=clock_ok, text="plausible" if clock_ok else "it is in the past", remedy="set it first"
    )
    if live:
        yield from _asked(settings)
    else:
        yield CheckResult(name="live paths", ok=None, text="the gateway is not asked; --live asks it, for free")


def _gateway(settings: Settings) -> CheckResult:
    """Whether a connection can be made, without the key; the sandbox is started by each run itself."""
    if settings.gateway.is_embedded:
        return CheckResult(name="gateway", ok=True, text=money_words(gateway_id(settings)))
    base_url = settings.gateway.base_url
    try:
        problem = asyncio.run(connection_problem(base_url, network_environment(os.environ)))
    except DopError as error:
        problem = str(error)
    if not problem:
        return CheckResult(name="gateway", ok=True, text=f"{money_words(gateway_id(settings))}; it can be reached")
    source = settings.sources.get("gateway.base_url", "default")
    remedy = f"check the address ({source}), the network, and HTTPS_PROXY or SSL_CERT_FILE where your company has them"
    return CheckResult(name="gateway", ok=False, text=f"{base_url}: {problem}", remedy=remedy)


def _network(settings: Settings) -> Iterator[CheckResult]:
    """The proxies and certificates that the environment names; silent where it names none."""
    try:
        network = network_environment(os.environ)
        network.ssl_context()
    except DopError as error:
        yield CheckResult(name="network", ok=False, text=str(error), remedy="set the variable right, or unset it")
        return
    if described := list(network.described()):
        direct = "" if network.proxy_for(settings.gateway.base_url) else "; the gateway is called directly"
        proxied = direct if network.proxies else ""
        yield CheckResult(name="network", ok=True, text=f"{', '.join(described)}{proxied}")


def _asked(settings: Settings) -> Iterator[CheckResult]:
    """What the gateway itself says to calls that cost nothing."""
    from pipeline.cli.commands.doctor_live import live_checks

    try:
        key = resolve_api_key(settings, ask=ask_to_trust)
    except DopError as error:
        yield CheckResult(name="live key", ok=False, text=str(error))
        return
    yield from live_checks(settings, key)


def _key(settings: Settings) -> CheckResult:
    if settings.gateway.is_embedded:
        return CheckResult(name="key", ok=True, text="the sandbox needs none")
    try:
        credential = kind_of(settings).credential
        key = read_key(os.environ, Path.home(), credential)
    except DopError as error:
        return CheckResult(name="key", ok=False, text=str(error))
    if key is None:
        return CheckResult(name="key", ok=False, text=f"none in {credential.places}", remedy=KEY_REMEDY)
    if not may_receive_key(settings, os.environ, KeyOrigins(state_folder(os.environ, Path.home())), credential):
        return CheckResult(name="key", ok=False, text=str(refusal(settings)))
    return CheckResult(name="key", ok=True, text="found; whether the gateway takes it is not checked")


def _ledger(settings: Settings) -> Iterator[CheckResult]:
    name = ledger_name(settings)
    try:
        if not ledger_exists(settings):
            yield CheckResult(name="ledger", ok=True, text=f"{name} does not exist yet")
            return
        ledger = opened(settings)
    except DopError as error:
        yield CheckResult(name="ledger", ok=False, text=str(error))
        return
    try:
        problems = ledger.problems() + [f"{one.text}; {one.remedy}" for one in unfit(ledger, now=time.time())]
        yield CheckResult(
            name="ledger",
            ok=not problems,
            text=f"{name} is whole" if not problems else f"{name}: {problems[0]} ({len(problems)} in all)",
            remedy="`dop ledger check` lists everything with what to do",
        )
    finally:
        ledger.close(clean=False)


def _disk(settings: Settings) -> CheckResult:
    folder = existing_folder(settings.outputs.dir)
    if not os.access(folder, os.W_OK):
        return CheckResult(name="disk", ok=False, text=f"{folder.resolve()} can't be written", remedy=DISK_REMEDY)
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free below {folder.resolve()}"
    return CheckResult(name="disk", ok=free >= LOW_DISK_BYTES, text=text, remedy=DISK_REMEDY)
