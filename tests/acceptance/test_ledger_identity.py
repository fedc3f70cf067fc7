"""One account has one ledger, which is known by what it is and not by its name, its inode or the clock of its host."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.acceptance.conftest import Opened
from tests.support.certificates import quick
from tests.support.cli_driver import KEY, Dop, Ended, Here, ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.postgres import PostgresServer
from tests.support.surroundings import at_a_terminal, beside, care, copy_ledger, hooked, prompts, stranger

Against = Callable[..., Opened]
LOST = {"status": 502, "body": "<html>Bad Gateway</html>", "book": True}
DAY_S = 86_400


def bought(against: Against, rows: int = 3) -> Opened:
    """A user who has bought so many rows."""
    dop, double = against()
    end = dop.buy(dop.csv(shots(rows)))
    assert end.code == 0, end.err
    return dop, double


def refused(end: Ended, double: GatewayDouble, sent: int, *words: str) -> None:
    """The command bought nothing, and said why."""
    assert len(double.submits) == sent, end.err
    assert end.code in (2, 7), (end.code, end.err)
    assert all(word in end.err for word in words), end.err


# --- the lock


def beside_a_run(dop: Dop, double: GatewayDouble, second: Callable[[], Ended], *words: object) -> tuple[Ended, Ended]:
    """Calls `second` while a run holds its ledger with everything bought and nothing finished; ends both."""
    double.script.generation_s = 3600
    first = dop.start("run", dop.folder / "shots.csv", "--yes", *words)
    try:
        wait_for(lambda: len(double.jobs) == 3)
        other = second()
    finally:
        double.script.generation_s = 0
    return ended(first), other


SECOND_RUN = ("--max-duration", "1s", "--set", "on_unknown.policy=resend", "--set", "on_unknown.max_cost=9")


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_second_name_of_the_ledger_does_not_let_two_runs_work(against: Against, link: str) -> None:
    dop, double = against()
    manifest = dop.csv(shots(3))
    other = beside(dop, "other")
    other.outputs.mkdir()

    def second() -> Ended:
        getattr(other.outputs / "ledger.db", link)(dop.outputs / "ledger.db")
        return other.buy(manifest, *SECOND_RUN)

    first, end = beside_a_run(dop, double, second)
    assert end.code in (7, 11), (end.code, end.err)
    assert first.code == 0, first.err
    assert len(double.submits) == 3


def test_a_lock_file_that_is_removed_does_not_let_two_runs_work(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(3))

    def second() -> Ended:
        (dop.outputs / "ledger.lock").unlink(missing_ok=True)
        return dop.buy(manifest, *SECOND_RUN)

    first, end = beside_a_run(dop, double, second)
    assert end.code == 11, (end.code, end.err)
    assert first.code == 0, first.err
    assert len(double.submits) == 3


def test_what_is_in_flight_is_not_sent_again_by_a_second_run(against: Against) -> None:
    dop, double = against(submits={"*": {"stall_s": 3600.0, "book": True}})
    manifest = dop.csv(shots(1))
    dop.start("run", manifest, "--yes")  # its POST is never answered; the fixture ends it
    wait_for(lambda: double.charged == 1)
    for lock in dop.outputs.glob("*.lock"):
        lock.unlink()
    double.script.submits = {}
    second = dop.buy(manifest, *SECOND_RUN)
    assert second.code == 11, second.err
    assert double.charged == 1


# --- side files


def test_two_ledgers_that_differ_in_their_ending_share_nothing(against: Against) -> None:
    """Two accounts (two gateways), whose ledgers lie beside each other."""
    dop, _ = against()
    manifest = dop.csv(shots(4))
    assert dop.buy(manifest, "--set", f"ledger.path={dop.folder / 'x.db'}").code == 0
    alone = {file.name for file in dop.folder.glob("x*")}
    with GatewayDouble(Script(key=KEY)) as elsewhere:
        other = stranger(dop, "other")
        other.base_url = elsewhere.base_url
        end = other.buy(manifest, "--first", "2", "--set", f"ledger.path={dop.folder / 'x.sqlite'}")
        assert end.code == 0, end.err
    second = {file.name for file in dop.folder.glob("x*")} - alone
    assert {name.removeprefix("x.sqlite") for name in second} == {name.removeprefix("x.db") for name in alone}
    with closing(sqlite3.connect(dop.folder / "x.sqlite")) as connection:
        assert connection.execute("select count(*) from attempts").fetchone() == (2,)


# --- copies


def copied(dop: Dop) -> Here:
    """Another user with a copy of the ledger and its journal."""
    other = stranger(dop, "copy")
    copy_ledger(dop, other)
    return other


def test_a_rebuilt_copy_is_still_a_copy(against: Against) -> None:
    dop, double = bought(against)
    other = copied(dop)
    assert care(other, "rebuild").code == 0
    refused(other.buy(other.csv(shots(5))), double, 3, "dop ledger adopt")
    assert care(other, "adopt").code == 0
    assert other.buy(other.csv(shots(5))).code == 0
    assert len(set(prompts(double))) == double.charged == 5


def test_a_ledger_born_of_a_journal_is_a_copy_until_it_is_adopted(against: Against) -> None:
    dop, double = bought(against)
    other = copied(dop)
    for file in other.outputs.glob("ledger.db*"):
        if not file.name.endswith("journal"):
            file.unlink()
    refused(other.buy(other.csv(shots(5))), double, 3, "dop ledger adopt")
    assert care(other, "adopt").code == 0
    assert other.buy(other.csv(shots(5))).code == 0
    assert len(set(prompts(double))) == double.charged == 5


def test_a_copy_is_not_adopted_while_the_original_has_bought_more(against: Against) -> None:
    dop, double = bought(against)
    other = beside(dop, "copy")
    copy_ledger(dop, other)
    assert dop.buy(dop.csv(shots(5))).code == 0
    adopted = care(other, "adopt")
    assert (adopted.code, str(dop.outputs / "ledger.db") in adopted.err) == (7, True), adopted.err
    refused(other.buy(other.csv(shots(5))), double, 5, "dop ledger adopt")
    shutil.move(dop.outputs, dop.folder / "given up")
    assert care(other, "adopt").code == 0
    refused(other.buy(other.csv(shots(5))), double, 5, "older state")


def test_the_original_spends_no_more_when_its_copy_was_adopted(against: Against) -> None:
    dop, double = bought(against)
    other = beside(dop, "copy")
    copy_ledger(dop, other)
    assert care(other, "adopt").code == 0
    refused(dop.buy(dop.csv(shots(5))), double, 3, str(other.outputs / "ledger.db"), "took over")
    assert other.buy(other.csv(shots(4))).code == 0
    assert care(dop, "adopt").code == 7
    assert other.buy(other.csv(shots(5))).code == 0
    assert len(set(prompts(double))) == double.charged == 5


def test_a_renewed_key_does_not_let_the_original_spend_beside_its_copy(against: Against) -> None:
    dop, double = bought(against)
    other = beside(dop, "copy")
    copy_ledger(dop, other)
    assert care(other, "adopt").code == 0
    (record,) = Path(dop.environment()["HOME"]).rglob("accounts/*.json")
    record.rename(record.with_name("0" * 32 + ".json"))  # the account of a key that is not used any more
    refused(dop.buy(dop.csv(shots(5))), double, 3, "took over")


@pytest.mark.long
@pytest.mark.parametrize("how", ["rebuild", "delete"])
def test_a_ledger_that_has_moved_to_a_server_never_spends_again(against: Against, postgres: str, how: str) -> None:
    dop, double = bought(against)
    assert care(dop, "copy", "--to", postgres).code == 0
    refused(dop.buy(dop.csv(shots(5))), double, 3)
    if how == "rebuild":
        assert care(dop, "rebuild").code == 0
    else:
        for file in dop.outputs.glob("ledger.db*"):
            if not file.name.endswith("journal"):
                file.unlink()
    refused(dop.buy(dop.csv(shots(5))), double, 3)


def journal_of(dop: Dop) -> Path:
    """The ledger's journal, however the side files are named."""
    (journal,) = dop.outputs.glob("ledger*.journal")
    return journal


@pytest.mark.parametrize(("own", "foreign"), [(2, 5), (5, 2), (3, 3)])
def test_the_journal_of_another_ledger_is_refused(against: Against, own: int, foreign: int) -> None:
    dop, double = bought(against, own)
    with GatewayDouble(Script(key=KEY)) as elsewhere:
        other = stranger(dop, "other")
        other.base_url = elsewhere.base_url
        assert other.buy(other.csv(shots(foreign, prompt="of another ledger"))).code == 0
    shutil.copyfile(journal_of(other), journal_of(dop))
    refused(dop.buy(dop.csv(shots(own + 2))), double, own, "journal")
    assert dop.ledger("select count(*) from attempts") == [(own,)]
    assert care(dop, "check").code == 7


def test_a_lost_ledger_beside_the_journal_of_another_buys_nothing_twice(against: Against) -> None:
    dop, double = bought(against, 4)
    other = stranger(dop, "other")
    assert other.buy(other.csv(shots(2, model="dop-turbo"))).code == 0
    shutil.copyfile(journal_of(other), journal_of(dop))
    (dop.outputs / "ledger.db").unlink()
    end = dop.buy(dop.csv(shots(4)))
    refused(end, double, 6)


@pytest.mark.process
def test_a_snapshot_on_another_machine_is_a_copy(against: Against, tmp_path: Path) -> None:
    """The same files with the same inodes on a machine with another name and another /etc/machine-id."""
    dop, double = bought(against)
    identity = tmp_path / "machine-id"
    identity.write_text("0123456789abcdef0123456789abcdef\n")
    script = 'hostname other-machine && mount --bind "$1" /etc/machine-id && shift && exec "$@"'
    elsewhere = ["unshare", "--map-root-user", "--mount", "--uts", "sh", "-c", script, "sh", str(identity)]
    if shutil.which("unshare") is None or subprocess.run([*elsewhere, "true"], check=False).returncode != 0:
        pytest.skip("this machine does not let a test have a name of its own (unshare)")
    words = dop.words("run", (dop.csv(shots(5)), "--yes"))
    environ = dop.environment() | {"HOME": str(tmp_path / "other-home")}
    done = subprocess.run(
        [*elsewhere, *words], cwd=dop.folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    refused(Ended(code=done.returncode, out=done.stdout, err=done.stderr), double, 3, "dop ledger adopt")


# --- the account and its ledger


def test_another_folder_for_a_known_account_is_refused_without_a_terminal(against: Against) -> None:
    dop, double = bought(against)
    other = beside(dop, "other")
    end = other.buy(other.csv(shots(3)))
    refused(end, double, 3, "--new-ledger", str(dop.outputs / "ledger.db"))


def test_removed_outputs_of_a_known_account_are_refused_without_a_terminal(against: Against) -> None:
    dop, double = bought(against)
    shutil.rmtree(dop.outputs)
    refused(dop.buy(dop.csv(shots(3))), double, 3, "--new-ledger")


def test_with_new_ledger_another_folder_buys(against: Against) -> None:
    dop, double = bought(against)
    other = beside(dop, "other")
    manifest = other.csv(shots(2))
    end = other.buy(manifest, "--new-ledger")
    assert end.code == 0, end.err
    assert double.charged == 5
    again = other.buy(manifest)
    assert again.code == 0, again.err
    assert double.charged == 5


def test_the_account_is_remembered_in_the_state_folder_and_without_its_key(against: Against) -> None:
    dop, double = against()
    state = dop.folder / "state"
    dop.environ["XDG_STATE_HOME"] = str(state)
    assert dop.buy(dop.csv(shots(2))).code == 0
    files = [file for file in state.rglob("*") if file.is_file()]
    assert files
    assert all(KEY.encode() not in file.read_bytes() and KEY not in str(file) for file in files)
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    other = beside(dop, "other")
    other.environ["PIXAZO_API_KEY"] = double.script.key = "key-of-another-account-9876543210"
    end = other.buy(other.csv(shots(1)))
    assert end.code == 0, "another account may have a ledger of its own"


@pytest.mark.long
@pytest.mark.process
def test_at_a_terminal_a_new_ledger_for_a_known_account_is_asked_about(against: Against) -> None:
    dop, double = bought(against)
    other = beside(dop, "other")
    end = at_a_terminal(other, other.words("run", (other.csv(shots(2)),)), "n", timeout_s=20)
    assert len(double.submits) == 3, end.err
    assert end.code in (2, 7), end.err
    assert str(dop.outputs / "ledger.db") in end.err.replace("\r\n", ""), "the question names the known ledger"


# --- one gateway, many spellings


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
def test_two_spellings_of_this_machine_are_one_gateway(against: Against, host: str) -> None:
    dop, double = bought(against, 2)
    assert dop.base_url is not None
    dop.base_url = dop.base_url.replace("127.0.0.1", host)
    end = dop.buy(dop.csv(shots(2)))
    assert double.charged == len(double.submits) == 2, end.err
    assert end.code == 0, end.err


class TlsDouble(GatewayDouble):
    """The double behind a certificate of its own."""

    pem: Path

    async def start(self) -> str:
        import asyncio

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.base_url = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"
        return self.base_url


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that signs itself, with its key, in one PEM file."""
    return quick(tmp_path / "gateway.pem", "localhost", "127.0.0.1", is_ca=True)


@pytest.fixture
def tls(certificate: Path) -> Iterator[TlsDouble]:
    """A gateway double that is reached at https://localhost."""
    double = TlsDouble(Script(key=KEY))
    double.pem = certificate
    with double:
        yield double


def test_a_final_dot_does_not_make_another_gateway(tls: TlsDouble, tmp_path: Path) -> None:
    environ = {"SSL_CERT_FILE": str(tls.pem)}
    dop = Dop(folder=tmp_path, base_url=tls.base_url, environ=environ)
    manifest = dop.csv(shots(2))
    end = dop.buy(manifest)
    assert end.code == 0, end.err
    dop.base_url = tls.base_url.replace("localhost", "localhost.")
    end = dop.buy(manifest, "--max-duration", "1s", "--set", "images.preflight=never")
    assert tls.charged == len(tls.submits) == 2, end.err
    assert end.code == 0, end.err
    assert dop.ledger("select count(distinct gateway) from runs") == [(1,)]


# --- the clock


@pytest.mark.parametrize(("ahead_s", "cap"), [(-DAY_S, "per_day"), (-31 * DAY_S, "per_month")])
def test_a_clock_that_is_set_back_opens_no_cap_again(against: Against, ahead_s: int, cap: str) -> None:
    dop, double = against()
    manifest = dop.csv(shots(6))
    caps = ("--set", f"budget.{cap}=0.30")
    assert dop.buy(manifest, *caps).code == 8
    assert double.charged == 2
    end = hooked(dop, TEST_CLOCK_AHEAD_S=ahead_s).buy(manifest, *caps)
    assert double.charged == 2, end.err
    assert end.code != 0
    assert "clock" in end.err
    assert dop.buy(manifest, *caps).code == 8
    assert double.charged == 2


def test_a_clock_minutes_before_the_newest_event_refuses_to_buy(against: Against) -> None:
    dop, double = bought(against)
    end = hooked(dop, TEST_CLOCK_AHEAD_S=-600).buy(dop.csv(shots(5)))
    assert double.charged == 3, end.err
    assert end.code != 0
    assert "clock" in end.err


@pytest.mark.long
def test_a_clock_set_back_and_forth_never_passes_a_cap(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(9))
    caps = ("--set", "budget.per_day=0.30")
    for ahead_s in (DAY_S, 0, 2 * DAY_S, DAY_S):
        hooked(dop, TEST_CLOCK_AHEAD_S=ahead_s).buy(manifest, *caps)
    days = 2  # the first day and the one after it, each with two rows; never a day before the newest event
    assert double.charged_mills <= days * 300, "the cap of a day was passed"
    assert double.charged == 2 * days


@pytest.mark.long
def test_on_a_server_its_clock_decides_the_day(against: Against, postgres: str) -> None:
    dop, double = against()
    dop.environ["DOP_LEDGER__URL"] = postgres
    manifest = dop.csv(shots(6))
    caps = ("--set", "budget.per_day=0.30")
    assert dop.buy(manifest, *caps).code == 8
    for ahead_s in (DAY_S, -DAY_S):
        hooked(dop, TEST_CLOCK_AHEAD_S=ahead_s).buy(manifest, *caps)
    assert double.charged == 2


# --- a spool that conflicts


@pytest.mark.long
@pytest.mark.process
def test_a_spool_entry_that_conflicts_becomes_a_note_and_its_file_is_kept(
    against: Against, postgres: str, postgres_server: PostgresServer
) -> None:
    """The server is lost while a POST is out; the host dies; another host settles the row; the first comes back."""
    dop, double = against(generation_s=0.1, submits={"1": {"stall_s": 1.0, "book": True}})
    dop.environ["DOP_LEDGER__URL"] = postgres
    manifest = dop.csv(shots(1))
    double.watch = lambda what, count: postgres_server.stop() if what == "submitted" else None
    running = dop.start("run", manifest, "--yes")
    try:
        wait_for(lambda: list(dop.outputs.glob("ledger*spool-*")) != [])
    finally:
        running.send_signal(signal.SIGKILL)
        ended(running)
        double.watch = lambda what, count: None
        postgres_server.start()
    (job,) = double.jobs
    other = beside(dop, "other")
    assert other.call("run", manifest, "--yes").code == 3
    assert other.call("resolve", "row-1", "--charged").code == 0
    end = dop.call("run", manifest, "--yes")
    assert job in end.err, "a notice names the paid id"
    assert job in dop.call("show", "row-1").out, "the history holds a NOTE with the id"
    kept = list(dop.outputs.glob("ledger*spool-*.booked"))
    assert len(kept) == 1
    assert job in kept[0].read_text()
    assert double.charged == 1


# --- the breaker


@pytest.mark.long
def test_the_breaker_begins_from_the_newest_outcomes_in_the_ledger(against: Against) -> None:
    """A gateway that charges and answers 502: 3 + the submits in flight may be lost, over all starts together."""
    in_flight = 4
    dop, double = against(submits={"*": LOST})
    manifest = dop.csv(shots(200))
    fast = ("--set", f"pace.submit_concurrency={in_flight}", "--set", "pace.rate=1000/1s", "--max-duration", "500ms")
    for _ in range(6):
        end = dop.buy(manifest, *fast)
        assert end.code == 3, end.err
    assert double.charged <= 3 + in_flight, f"{double.charged} unknown outcomes after six starts"
    unknown = sum(row["status"] == "unknown" for row in dop.rows())
    assert unknown == double.charged
    assert Decimal(dop.ledger_mills()) == double.charged_mills


def test_the_doubles_of_this_file_do_what_they_say(against: Against) -> None:
    """The hook of the clock moves the wall clock of a process by what it is given."""
    dop, _ = against()
    ahead = hooked(dop, TEST_CLOCK_AHEAD_S=-DAY_S)
    asked = "import time, datetime; print(time.time(), datetime.datetime.now(datetime.timezone.utc).timestamp())"
    words = [os.environ.get("PYTHON", str(Path(ahead.words("run", ())[0]).with_name("python"))), "-c", asked]
    done = subprocess.run(words, env=ahead.environment(), capture_output=True, text=True, timeout=30, check=True)
    real = datetime.now(UTC).timestamp()
    for said in done.stdout.split():
        assert abs(float(said) + DAY_S - real) < 60
