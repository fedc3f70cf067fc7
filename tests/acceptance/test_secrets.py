"""Secrets: the key in any escape, in a folder of a stranger; the database's password; tokens of pages and callbacks."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import shlex
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import DOP, KEY, Dop, Here, ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Heard, Json, Script
from tests.support.surroundings import Keyless, at_a_terminal
from tests.support.webhook_catcher import serving

Against = Callable[..., Opened]
ROOT = Path(__file__).resolve().parents[2]

# --- the key, quoted by the gateway

TAIL = "tail0123456789xyz"
CANARY = f'c4n4ry+K/9=w"q&{TAIL}'
SIGNS = '+/="&'


def _json_all(text: str, pattern: str) -> str:
    return "".join(pattern.format(ord(sign)) if sign in SIGNS else sign for sign in text)


QUOTES: dict[str, str] = {
    "json": json.dumps(CANARY)[1:-1],
    "json-in-json": json.dumps(json.dumps(CANARY))[1:-1],
    "json-slash": json.dumps(CANARY)[1:-1].replace("/", "\\/"),
    "json-capitals": _json_all(CANARY, "\\u{:04X}"),
    "json-small": _json_all(CANARY, "\\u{:04x}"),
    "json-every-letter": "".join(f"\\u{ord(sign):04x}" for sign in CANARY),
    "percent": quote(CANARY, safe=""),
    "percent-small": _json_all(CANARY, "%{:02x}"),
    "percent-twice": quote(quote(CANARY, safe=""), safe=""),
    "html": html.escape(CANARY),
    "html-numbers": _json_all(CANARY, "&#{};"),
    "html-hex": _json_all(CANARY, "&#x{:X};"),
}
"""The key as a server may write it into the text of a JSON answer."""


def readings(text: str) -> list[str]:
    """The text, and what is read after one, two and three rounds of undoing escapes."""
    found = [text]
    for _ in range(3):
        text = re.sub(r"\\([\"/\\])", r"\1", text)
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
        text = re.sub(r"%([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), text)
        text = html.unescape(text)
        found.append(text)
    return found


def leaks(folder: Path, *said: str) -> list[str]:
    """Every file, name and text that gives the end of the key away, in the clear or after undoing escapes."""
    texts = {str(file): file.read_bytes().decode("latin-1") for file in folder.rglob("*") if file.is_file()}
    texts |= {f"the name {name}": name for name in list(texts)}
    texts |= {f"said, {number}": text for number, text in enumerate(said)}
    return sorted(name for name, text in texts.items() if any(TAIL in reading for reading in readings(text)))


def answer(quoted: str, status: int) -> Json:
    """A fault whose JSON text quotes the key."""
    body = f'{{"status": "failed", "error": "upstream refused key {quoted} for you"}}'
    return {"status": status, "body": body, "headers": {"Content-Type": "application/json"}}


@pytest.mark.parametrize("quoted", QUOTES)
def test_a_key_that_is_quoted_with_escapes_is_nowhere(against: Against, quoted: str) -> None:
    text = QUOTES[quoted]
    dop, double = against(
        prompts={"scene 1 ": answer(text, 500), "scene 2 ": answer(text, 422), "scene 3 ": answer(text, 200)},
        rows={
            "scene 4 ": {"polls_in_trouble": 999, "trouble": [answer(text, 200)]},
            "scene 5 ": {"polls_in_trouble": 1, "trouble": [answer(text, 503)]},
        },
    )
    dop.environ["PIXAZO_API_KEY"] = double.script.key = CANARY
    said = []
    manifest = dop.csv(shots(6))
    end = dop.call("run", manifest, "--yes", "-v", "--log-json", "--set", "pace.submit_concurrency=1")
    assert end.code == 3, end.err
    assert end.counts.get("done") == 2, end.err
    said += [end.out, end.err]
    for verb, *words in (
        ("status", "--json"),
        ("show", "row-1"),
        ("show", "row-2", "--json"),
        ("show", "row-4"),
        ("report", "-o", dop.folder / "r.jsonl", dop.folder / "r.junit.xml", dop.folder / "r.html"),
        ("doctor", "--json"),
    ):
        end = dop.call(verb, *words)
        said += [end.out, end.err]
    assert leaks(dop.folder, *said) == []


def test_the_search_sees_every_quotation(tmp_path: Path) -> None:
    for name, text in QUOTES.items():
        (tmp_path / name).write_text(f'{{"detail": {json.dumps("500 " + text)}}}')
    assert len(leaks(tmp_path)) == len(QUOTES)
    (tmp_path / "harmless").write_text("upstream refused key *** for you")
    assert len(leaks(tmp_path)) == len(QUOTES)


# --- the key in a folder of a stranger


class Listening(GatewayDouble):
    """Remembers the headers of every request, on any path."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__(script)
        self.heard: list[Heard] = []

    async def _answer(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        self.heard.append(heard)
        await super()._answer(heard, writer)

    @property
    def keys(self) -> set[str]:
        """Every key it was sent."""
        return {value for heard in self.heard for name, value in heard.headers.items() if KEY in value}


def stranger_folder(dop: Dop, how: str, origin: str) -> None:
    """A folder with settings of another user, which name a gateway of theirs."""
    if how == ".env":
        (dop.folder / ".env").write_text(f"DOP_GATEWAY__BASE_URL={origin}\n")
    else:
        file = dop.folder / how
        file.parent.mkdir(exist_ok=True)
        defaults = "{model: dop-lite, motion: General, strength: 0.7, enhance_prompt: false}"
        poll = "{first_s: 0.05, min_s: 0.05, max_s: 0.2}"
        file.write_text(f"gateway:\n  base_url: {origin}\npoll: {poll}\ndefaults: {defaults}\n")


@pytest.mark.parametrize("how", [".env", "configs/default.yaml"])
def test_a_folder_of_a_stranger_does_not_receive_the_stored_key(tmp_path: Path, how: str) -> None:
    with Listening() as thief:
        dop = Keyless(folder=tmp_path)
        dop.keep_key(KEY)
        stranger_folder(dop, how, thief.base_url)
        manifest = dop.csv(shots(1))
        for verb, *words in (
            ("run", manifest, "--yes"),
            ("submit", manifest, "--yes"),
            ("doctor", "--live"),
            ("motions", "--refresh"),
        ):
            end = dop.typed(verb, *map(str, words))
            assert thief.keys == set(), f"dop {verb} sent the key: {end.err}"
            assert end.code in (2, 7), (verb, end.code, end.err)
            assert f"dop key trust {thief.base_url}" in end.out + end.err, (verb, end.out, end.err)
        assert thief.charged == 0


def test_an_origin_that_is_trusted_receives_the_key_and_no_other_does(tmp_path: Path) -> None:
    with Listening(Script(key=KEY)) as own, Listening() as thief:
        dop = Keyless(folder=tmp_path)
        dop.keep_key(KEY)
        stranger_folder(dop, "configs/default.yaml", own.base_url)
        end = dop.typed("key", "trust", own.base_url)
        assert end.code == 0, end.err
        assert dop.buy(dop.csv(shots(1))).code == 0
        assert own.charged == 1
        stranger_folder(dop, "configs/default.yaml", thief.base_url)
        assert dop.buy(dop.csv(shots(2))).code in (2, 7)
        assert thief.keys == set()


@pytest.mark.process
def test_at_a_terminal_an_unknown_origin_is_asked_about_before_the_key_is_sent(tmp_path: Path) -> None:
    with Listening() as thief:
        dop = Keyless(folder=tmp_path)
        dop.keep_key(KEY)
        stranger_folder(dop, "configs/default.yaml", thief.base_url)
        words = [DOP, "run", dop.csv(shots(1)), "--yes", "--outputs", dop.outputs, "--max-duration", "2s"]
        end = at_a_terminal(dop, words, "n", timeout_s=20)
        assert thief.keys == set(), end.out
        assert thief.base_url in end.out


# --- the database's password

PASSWORD = "c4n4ryPASS"
ADDRESSES = {
    "percent that is no escape": f"postgresql://dop:{PASSWORD}%zz@127.0.0.1:1/dop",
    "percent zero": f"postgresql://dop:{PASSWORD}%00@127.0.0.1:1/dop",
    "scheme in capitals": f"POSTGRESQL://dop:{PASSWORD}@127.0.0.1:1/dop",
    "option passwd": f"postgresql://dop@127.0.0.1:1/dop?passwd={PASSWORD}",
    "option in capitals": f"postgresql://dop@127.0.0.1:1/dop?PASSWORD={PASSWORD}",
    "option with an escape": f"postgresql://dop@127.0.0.1:1/dop?p%61ssword={PASSWORD}",
}
QUIET_ADDRESSES = {
    "plain": f"postgresql://dop:{PASSWORD}@127.0.0.1:1/dop",
    "space": f"postgresql://dop:{PASSWORD} x@127.0.0.1:1/dop",
    "no database": f"postgresql://dop:{PASSWORD}@127.0.0.1:1",
    "no port": f"postgresql://dop:{PASSWORD}@127.0.0.1:port/dop",
    "bracket": f"postgresql://dop:{PASSWORD}[@127.0.0.1:1/dop",
    "control character": f"postgresql://dop:{PASSWORD}\x07@127.0.0.1:1/dop",
    "words": f"host=127.0.0.1 password={PASSWORD}",
    "another database": f"mysql://dop:{PASSWORD}@127.0.0.1/dop",
    "two at signs": f"postgresql://dop:{PASSWORD}@@127.0.0.1:1/dop",
    "number sign": f"postgresql://dop:{PASSWORD}#1@127.0.0.1:1/dop",
}


def says_the_password(dop: Dop, url: str) -> list[str]:
    """Which commands repeat it, with the line, and which files hold it."""
    dop.environ = {"DOP_LEDGER__URL": url, "PGCONNECT_TIMEOUT": "1"}
    found = []
    manifest = dop.csv(shots(1))
    buying: list[tuple[object, ...]] = [("run", manifest, "--yes"), ("plan", manifest)]
    for verb, *words in [*buying, ("doctor",), ("doctor", "--json"), ("status",), ("list",), ("spend",)]:
        end = dop.call(str(verb), *words)
        found += [f"{verb}: {line}" for line in (end.out + end.err).splitlines() if PASSWORD in line]
    for care in (["check"], ["copy", "--to", url]):
        end = dop.typed("ledger", *care, "--outputs", str(dop.outputs))
        found += [f"ledger {care[0]}: {line}" for line in (end.out + end.err).splitlines() if PASSWORD in line]
    files = [file for file in dop.folder.rglob("*") if file.is_file()]
    return found + [f"{file}" for file in files if PASSWORD.encode() in file.read_bytes()]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_message_repeats_the_password_of_the_database(rehearsal: Dop, address: str) -> None:
    assert says_the_password(rehearsal, ADDRESSES[address]) == []


@pytest.mark.parametrize("address", QUIET_ADDRESSES)
def test_no_message_repeats_the_password_of_an_address_that_is_refused(rehearsal: Dop, address: str) -> None:
    assert says_the_password(rehearsal, QUIET_ADDRESSES[address]) == []


@pytest.mark.long
@pytest.mark.process
def test_the_place_of_a_workers_sign_of_life_does_not_depend_on_the_password(against: Against, postgres: str) -> None:
    """A name that changes with the password lets every user of the machine try passwords against it."""
    dop, _ = against()
    temporary = dop.folder / "tmp"
    temporary.mkdir()
    dop.environ["TMPDIR"] = str(temporary)

    def healthy(password: str) -> bool:
        dop.environ["DOP_LEDGER__URL"] = postgres.replace("postgres@", f"postgres:{password}@")
        return dop.call("worker", "--health", "--set", "cluster.shared_outputs=true").code == 0

    dop.environ["DOP_LEDGER__URL"] = postgres.replace("postgres@", "postgres:one@")
    dop.start("worker", "--set", "cluster.shared_outputs=true")
    wait_for(lambda: healthy("one"))
    assert healthy("two"), sorted(temporary.iterdir())


def test_no_page_recommends_an_argument_with_a_password() -> None:
    """Every user of a machine can read the arguments of every process."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    bad = re.compile(r"\bdop\b[^`\n]*(\$\{?DOP_LEDGER__URL|postgres(?:ql)?://[^\s/@:]+:[^\s@]+@)|PGPASSWORD=\S+ +dop\b")
    found = [f"{page.name}: {line}" for page in pages for line in page.read_text().splitlines() if bad.search(line)]
    assert found == []


# --- the page's token


@pytest.mark.long
@pytest.mark.process
def test_the_browser_is_not_started_with_the_token_of_the_page(against: Against) -> None:
    dop, _ = against()
    assert dop.buy(dop.csv(shots(1))).code == 0
    record, browser = dop.folder / "argv.txt", dop.folder / "browser.sh"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {shlex.quote(str(record))}.part\nmv {record}.part {record}\n')
    browser.chmod(0o700)
    dop.environ["BROWSER"] = f"{browser} %s"
    process = dop.start("view")
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    try:
        wait_for(record.exists)
        (opened,) = record.read_text().split()
        token = next(part for part in urlsplit(address).path.split("/") if len(part) >= 16)
        assert token not in opened, "every user of this machine can read the arguments of a process"
        page = Path(urlsplit(opened).path)
        assert urlsplit(opened).scheme == "file"
        assert token in page.read_text(), "the file leads the browser to the page"
        assert page.stat().st_mode & 0o077 == 0
    finally:
        process.send_signal(signal.SIGTERM)
        ended(process)


# --- the receiver


def sent_raw(address: str, content: bytes) -> bytes:
    """What a server answers to these very bytes."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(content)
        return connection.recv(4_096)


def test_a_receiver_never_repeats_tokens_or_secrets_of_broken_calls(against: Against) -> None:
    dop, double = against()
    receiver = serving(dop)
    assert receiver.stdout is not None
    address = receiver.stdout.readline().strip()
    callbacks = ("--set", f"webhook.listen={address.removeprefix('http://')}", "--set", f"webhook.public_url={address}")
    end = dop.buy(dop.csv(shots(1)), "--webhook", *callbacks)
    assert end.code == 0, end.err
    body = double.submits[0]["body"]
    path, secret = body["webhook_url"].removeprefix(address), body["webhook_secret"]
    token = path.rpartition("/")[2]
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n"
    for call in (
        f"POST {path} HTTP/9.9 {secret}\r\n\r\n",
        f"POST http://[{path} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"{head}X-Webhook-Secret-Key {secret}\r\nContent-Length: 2\r\n\r\n{{}}",
        f"{head}X-Webhook-Secret-Key: {secret}\0\r\nContent-Length: 2\r\n\r\n{{}}",
        f"{head}Content-Length: {secret}\r\n\r\n{{}}",
        f"{head}X-Webhook-Secret-Key: {secret}\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n",
    ):
        assert b" 400 " in sent_raw(address, call.encode())
    receiver.send_signal(signal.SIGTERM)
    end = ended(receiver)
    assert token not in end.out + end.err
    assert secret not in end.out + end.err
    assert "Traceback" not in end.err


def test_the_stranger_has_no_key_of_the_environment(tmp_path: Path) -> None:
    dop = Keyless(folder=tmp_path)
    assert "PIXAZO_API_KEY" not in dop.environment()
    assert "PIXAZO_API_KEY" in Here(folder=tmp_path).environment()
    assert os.environ.get("PIXAZO_API_KEY") is None
