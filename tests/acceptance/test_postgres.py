"""The command with its ledger on a PostgreSQL server: the same promises, and a server that restarts meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.ledger import postgres_readers
from pipeline.ledger.postgres_ledger import PostgresLedger
from tests.acceptance.conftest import Opened
from tests.acceptance.test_killed import AT_MOST, GOOD, WORKERS, check_after_a_kill, check_books
from tests.support.cli_driver import Dop, Ended, ended, killed, shots, wait_for
from tests.support.fake_gateway import GatewayDouble
from tests.support.postgres import PostgresServer

Against = Callable[..., Opened]
pytestmark = pytest.mark.long


@pytest.fixture
def on_server(against: Against, postgres: str) -> Callable[..., Opened]:
    """A user whose every command keeps its ledger on the server."""

    def make(**script: object) -> Opened:
        dop, double = against(**script)
        dop.environ["DOP_LEDGER__URL"] = postgres.replace("postgres@", "postgres:canary-password@")
        return dop, double

    return make


def leaves(folder: Path) -> bytes:
    """Everything that the commands wrote."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_every_verb_works_and_no_password_is_printed(on_server: Against) -> None:
    dop, double = on_server(generation_s=0.1, prompts={"scene 2 ": {"status": 500, "body": {"error": "odd"}}})
    manifest = dop.csv(shots(3))
    said = ""
    for words, code in (
        (("plan", manifest), 0),
        (("status",), 2),
        (("run", manifest, "--yes"), 3),
        (("run", manifest, "--yes"), 3),
        (("status",), 0),
        (("list",), 0),
        (("show", "row-1"), 0),
        (("spend",), 0),
        (("doctor",), 0),
        (("report",), 0),
        (("resolve", "row-2", "--charged"), 0),
        (("run", manifest, "--yes"), 0),
        (("prune", "--keep", "30d", "--dry-run"), 0),
    ):
        end = dop.call(*map(str, words))
        assert end.code == code, (words, end.out, end.err)
        said += end.out + end.err
    for words in (("check",), ("rebuild",), ("check",), ("adopt",)):
        end = dop.typed("ledger", *words, "--outputs", str(dop.outputs))
        assert end.code == 0, end.err
        said += end.out + end.err
    assert len(double.submits) == 3
    assert not (dop.outputs / "ledger.db").exists()
    assert "postgresql://postgres@127.0.0.1" in said
    assert "canary-password" not in said
    assert b"canary-password" not in leaves(dop.outputs)
    assert dop.buy(manifest).code == 0
    assert len(double.submits) == 3, "an idle run sends nothing"


@pytest.mark.parametrize("moment", ["after-reserve:3", "after-post:28", "after-accept:28", "before-save:3"])
def test_a_kill_loses_nothing(on_server: Against, moment: str) -> None:
    dop, double = on_server(generation_s=0.2)
    manifest = dop.csv(shots(GOOD))
    first = dop.buy(manifest, *AT_MOST, fail_point=moment)
    assert killed(first), first.err
    check_after_a_kill(dop, double, dop.buy(manifest, *AT_MOST))
    assert double.charged >= GOOD - WORKERS


@pytest.mark.process
def test_a_server_that_crashes_in_the_middle_of_a_run_is_waited_for(
    on_server: Against, postgres_server: PostgresServer
) -> None:
    dop, double = on_server(generation_s=0.2)
    manifest = dop.csv(shots(GOOD))
    running = dop.start("run", manifest, "--yes", *AT_MOST)
    wait_for(lambda: len(double.submits) >= 8)
    postgres_server.crash()
    postgres_server.start()
    end = ended(running)
    assert end.code == 0, end.err
    assert double.charged == GOOD
    check_books(dop, double)


def test_a_server_that_stays_away_ends_the_run_and_the_next_one_books_what_was_answered(
    on_server: Against, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = PostgresLedger.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "patience_s", 1.0)
    monkeypatch.setattr(postgres_readers, "READERS_MAX_WAIT_S", 0.5)
    dop, double = on_server(generation_s=0.2)
    manifest = dop.csv(shots(GOOD))

    def watch(what: str, count: int) -> None:
        if (what, count) == ("submit", 9):
            postgres_server.stop()

    double.watch = watch
    try:
        end = dop.buy(manifest, *AT_MOST)
        assert end.code == 5, end.err
        assert "is away" in end.err
        assert "canary" not in end.err
        assert len(double.submits) < GOOD
        assert list(dop.outputs.glob("ledger.spool-*")) != []
        at_start = dop.buy(manifest, *AT_MOST)
        assert at_start.code == 5, at_start.err
    finally:
        postgres_server.start()
    end = dop.buy(manifest, *AT_MOST)
    assert end.code == 0, end.err
    assert list(dop.outputs.glob("ledger.spool-*")) == []
    assert double.charged == len(double.submits) == GOOD
    check_books(dop, double)


@pytest.mark.process
def test_of_two_runs_on_two_hosts_one_works_and_the_other_learns_who(on_server: Against, tmp_path: Path) -> None:
    dop, double = on_server()
    manifest = dop.csv(shots(3))
    other = _on_another_host(dop, double, tmp_path / "other")
    refusals: list[Ended] = []

    def watch(what: str, count: int) -> None:
        if (what, count) == ("submit", 1):  # the gateway says nothing until the second command has ended
            refusals.append(other.buy(manifest))

    double.watch = watch
    first = dop.start("run", manifest, "--yes")
    assert ended(first).code == 0
    (refused,) = refusals
    assert refused.code == 11, refused.err
    assert "another run holds postgresql://postgres@127.0.0.1" in refused.err
    assert f"process {first.pid}, since 20" in refused.err
    assert other.buy(manifest).code == 0, "and continues what the first one bought"
    assert len(double.submits) == 3


def _on_another_host(dop: Dop, double: GatewayDouble, folder: Path) -> Dop:
    folder.mkdir()
    return Dop(folder=folder, base_url=double.base_url, environ=dict(dop.environ))
