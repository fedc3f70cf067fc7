"""A marked key goes through every failure there is; afterwards it is nowhere but in the requests to its own gateway."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.cli_driver import Dop, Ended, killed, shots
from tests.support.fake_gateway import GatewayDouble, Script

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set

CANARY = "c4n4ry/key+with=signs-0123456789abcdef"
FORMS = (
    CANARY,
    quote(CANARY, safe=""),
    CANARY.replace("/", "\\/"),
    base64.b64encode(CANARY.encode()).decode(),
    CANARY[:16],
)
FEW = ("--set", "pace.submit_concurrency=2", "--set", "gateway.read_timeout_s=2")
QUOTES_THE_KEY = {
    "1": {"status": 500, "body": {"error": f"upstream refused key {CANARY}"}},
    "2": {"status": 200, "body": f"<html>{CANARY}</html>", "headers": {"X-Request-Id": CANARY}},
    "3": {"status": 422, "body": {"detail": f"Ocp-Apim-Subscription-Key: {CANARY}"}},
    "4": {"reset": "after", "book": True},
    "5": {"status": 429, "body": {"error": f"{CANARY} is too fast"}, "wait_s": 1},
}


def leaks(folder: Path, *said: str) -> list[str]:
    """Where any form of the key was left: names of files, and words of what was said."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            found += [f"{file.relative_to(folder)}: {form}" for form in FORMS if form.encode() in content]
        found += [f"a file's name: {file.name}" for form in FORMS if form in file.name]
    return found + [f"said: {text[:200]}" for text in said for form in FORMS if form in text]


class Witness:
    """Calls the command and remembers everything it says."""

    def __init__(self, dop: Dop) -> None:
        self.dop = dop
        self.dop.environ["PIXAZO_API_KEY"] = CANARY
        self.said: list[str] = []

    def call(self, verb: str, *words: object, fail_point: str | None = None) -> Ended:
        end = self.dop.call(verb, *words, fail_point=fail_point)
        self.said += [end.out, end.err]
        return end

    def leaks(self) -> list[str]:
        return leaks(self.dop.folder, *self.said)


@contextmanager
def watched(tmp_path: Path, **script: object) -> Iterator[tuple[Witness, GatewayDouble]]:
    with GatewayDouble(Script(**{"key": CANARY, **script})) as double:  # type: ignore[arg-type]
        yield Witness(Dop(folder=tmp_path, base_url=double.base_url)), double


def test_a_key_that_the_gateway_quotes_back_is_left_nowhere(tmp_path: Path) -> None:
    jobs = {"1": {"polls_in_trouble": 1, "trouble": [{"status": 502, "body": f"<html>{CANARY}</html>"}]}}
    with watched(tmp_path, submits=QUOTES_THE_KEY, jobs=jobs) as (witness, double):
        manifest = witness.dop.csv(shots(8))
        end = witness.call("run", manifest, "--yes", "-v", "--log-json", *FEW)
        assert end.code == 3, end.err
        assert any(submit["headers"]["ocp-apim-subscription-key"] == CANARY for submit in double.submits)
        unknown = next(row["request_id"] for row in witness.dop.rows() if row["status"] == "unknown")
        for words in (
            ["plan", manifest, "--json"],
            ["status", "--json"],
            ["list", "--json"],
            ["show", unknown],
            ["show", unknown, "--json"],
            ["report", "-o", tmp_path / "r.jsonl", tmp_path / "r.junit.xml", tmp_path / "r.html"],
            ["spend", "--json"],
            ["doctor"],
            ["doctor", "--json"],
        ):
            witness.call(*map(str, words))
        for words in (["check"], ["copy", tmp_path / "copy.db"]):
            printed = witness.dop.typed("ledger", *map(str, words), "--outputs", str(witness.dop.outputs))
            assert printed.code == 0, printed.err
            witness.said += [printed.out, printed.err]
        assert witness.leaks() == []
        assert "***" in "".join(file.read_text(errors="replace") for file in tmp_path.rglob("run.log"))


def test_a_key_that_is_refused_is_left_nowhere(tmp_path: Path) -> None:
    with watched(tmp_path, key="another-key-0123456789") as (witness, _):
        end = witness.call("run", witness.dop.csv(shots(2)), "--yes", "-v", "--log-json", *FEW)
        assert end.code == 7, end.err
        assert witness.leaks() == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_key_never_follows_a_redirect(tmp_path: Path, status: int) -> None:
    with GatewayDouble(Script()) as thief:
        moved = {"status": status, "headers": {"Location": f"{thief.base_url}/ai-model-api/v1/image-to-video"}}
        with watched(tmp_path, submits={"*": moved}) as (witness, _):
            end = witness.call("run", witness.dop.csv(shots(1)), "--yes", "-v", "--log-json", *FEW)
            assert end.code == 3, end.err
            assert witness.leaks() == []
        assert thief.submits == []
        assert thief.polls == []


def test_a_key_goes_with_no_download(tmp_path: Path) -> None:
    with watched(tmp_path, jobs={"*": {"redirects": 2}}) as (witness, double):
        end = witness.call("run", witness.dop.csv(shots(2)), "--yes", *FEW)
        assert end.code == 0, end.err
        assert double.downloads
        for heard in double.downloads:
            assert CANARY not in str(heard.headers)
        assert witness.leaks() == []


def test_a_killed_run_leaves_no_key(tmp_path: Path) -> None:
    with watched(tmp_path) as (witness, _):
        manifest = witness.dop.csv(shots(8))
        for moment in ("before-post", "after-post:2", "after-accept"):
            assert killed(witness.call("run", manifest, "--yes", "--log-json", *FEW, fail_point=moment))
            assert witness.leaks() == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "https://127.0.0.1:9"])
def test_a_gateway_that_is_not_there_leaves_no_key(tmp_path: Path, address: str) -> None:
    witness = Witness(Dop(folder=tmp_path, base_url=address))
    manifest = witness.dop.csv(shots(1))
    end = witness.call("run", manifest, "--yes", "-v", "--log-json", "--max-duration", "2s", *FEW)
    assert end.code == 5, end.err
    assert witness.leaks() == []


@pytest.mark.parametrize("key", [CANARY + "\n", CANARY + " x", CANARY + "\u00e9"])
def test_a_key_that_cannot_be_used_is_refused_without_being_said(tmp_path: Path, key: str) -> None:
    with GatewayDouble(Script()) as double:
        witness = Witness(Dop(folder=tmp_path, base_url=double.base_url))
        witness.dop.environ["PIXAZO_API_KEY"] = key
        end = witness.call("run", witness.dop.csv(shots(1)), "--yes", *FEW)
        if end.code == 0:
            assert key.strip() == CANARY, "only what was pasted with a line end is taken for the key"
        else:
            assert end.code in (2, 7), end.err
            assert double.submits == []
        assert witness.leaks() == []


def test_the_canary_would_be_seen(tmp_path: Path) -> None:
    """The look itself: a file, a name and a word that hold the key in any form are found."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.log").write_bytes(b"\x00" + quote(CANARY, safe="").encode())
    (tmp_path / f"{CANARY[:16].replace('/', '-')}").write_text("")
    assert leaks(tmp_path, f"key={CANARY}")
    assert len(leaks(tmp_path)) >= 1
