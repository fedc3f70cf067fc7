"""Notifications: one JSON object to a program's stdin and to an address, in bounded time.

Nothing here can fail a run or hold up a record: everything that matters is in the ledger before, what goes wrong comes
back as words, and a program that does not end is killed with its children. No secret leaves: the object is made of
what reports hold, and the program's environment lacks the key.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp

from pipeline.config.api_key import SECRET_VARIABLES
from pipeline.config.network import network_environment
from pipeline.config.settings import NotifySettings
from pipeline.errors import DopError


def notify(settings: NotifySettings, event: Mapping[str, object], environ: Mapping[str, str]) -> list[str]:
    """Send `event` wherever the settings say; returns a warning for each that failed. Never raises."""
    body = json.dumps(event, ensure_ascii=True).encode("ascii")
    return [problem for problem in _problems(settings, body, environ) if problem]


def _problems(settings: NotifySettings, body: bytes, environ: Mapping[str, str]) -> Iterator[str]:
    if settings.command is not None:
        yield _run(settings.command, body, environ, settings.timeout_s)
    if settings.url is not None:
        yield _post(settings.url, body, environ, settings.timeout_s)


def _run(command: str, body: bytes, environ: Mapping[str, str], timeout_s: float) -> str:
    words = shlex.split(command)
    name = f"notify.command ({words[0]})"
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own program, without a shell
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={key: value for key, value in environ.items() if key not in SECRET_VARIABLES},
            start_new_session=True,  # Ctrl-C at the terminal is for the run, and the group can be killed as a whole
        )
    except OSError as error:
        return f"{name} can't be started: {error.strerror}"
    try:
        process.communicate(body, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"{name} did not end within {timeout_s:g} s and was killed"
    except OSError:
        process.wait()
    return "" if process.returncode == 0 else f"{name} ended with {process.returncode}"


def _post(url: str, body: bytes, environ: Mapping[str, str], timeout_s: float) -> str:
    """The address is named by its host alone: its path is often a password."""
    name = f"notify.url ({urlsplit(url).hostname})"
    try:
        status = asyncio.run(_send(url, body, environ, timeout_s))
    except TimeoutError:
        return f"{name} did not answer within {timeout_s:g} s"
    except DopError as error:
        return f"{name}: {error}"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{name} can't be reached ({type(error).__name__})"
    return "" if 200 <= status < 300 else f"{name} answers {status}"


async def _send(url: str, body: bytes, environ: Mapping[str, str], timeout_s: float) -> int:
    network = network_environment(environ)
    context = network.ssl_context()
    connector = aiohttp.TCPConnector(ssl=context if context is not None else True)
    async with (
        asyncio.timeout(timeout_s),
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
        session.post(
            url,
            data=body,
            headers={"Content-Type": "application/json", "User-Agent": "dop-batch"},
            allow_redirects=False,
            proxy=network.proxy_for(url),
        ) as response,
    ):
        return response.status
