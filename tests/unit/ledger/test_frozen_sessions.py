"""A host that is frozen in the middle of a message to the server must not block all others for long."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection

from pipeline.errors import LedgerUnavailableError
from pipeline.ledger import postgres_session as sessions
from pipeline.ledger.batch_statements import BatchStatement, BatchStatements, Executor
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.postgres_session import LedgerLock, LockMode
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.transitions import Applied
from pipeline.records import Request
from tests.support.ledgers import read, requests, reserve, start

TOGETHER = 3


@dataclass(slots=True)
class Relay:
    """A host's line to the server, which tells its messages apart and can fall silent within one of them."""

    url: str
    kinds: str = ""
    """The types of the messages since `listen`: P(arse) B(ind) D(escribe) E(xecute) S(ync), and Q(uery)."""
    cut: int | None = None
    """After so many messages since `listen` only half of the next passes, and then nothing."""
    keeps_farewells: bool = False
    """The message with which a session ends does not arrive: the session lives on."""
    fell_silent: threading.Event = field(default_factory=threading.Event)
    _listens: bool = False
    _ends: list[socket.socket] = field(default_factory=list)

    def through(self) -> str:
        """The database's URL by way of this line."""
        server = socket.create_server(("127.0.0.1", 0))
        self._ends.append(server)
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        parts = urlsplit(self.url)
        here = parts._replace(netloc=f"{parts.username}@127.0.0.1:{server.getsockname()[1]}")
        return here.geturl() + "?sslmode=disable&gssencmode=disable"

    def listen(self) -> None:
        """From now on messages are counted."""
        self._listens = True

    def end(self) -> None:
        """The line is cut."""
        for one in self._ends:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                parts = urlsplit(self.url)
                far = socket.create_connection((parts.hostname, parts.port))
                self._ends += [near, far]
                for work in (self._up, self._down):
                    threading.Thread(target=work, args=(near, far), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        head = b""  # the first message has no type
        with suppress(OSError, EOFError), near.makefile("rb") as spoken:
            while True:
                length = _some(spoken, 4)
                said = head + length + _some(spoken, int.from_bytes(length, "big") - 4)
                if self.keeps_farewells and head == b"X":
                    return
                if self._listens and head:
                    if len(self.kinds) == self.cut:
                        far.sendall(said[: len(said) // 2])
                        self.fell_silent.set()
                        return
                    self.kinds += head.decode()
                far.sendall(said)
                head = _some(spoken, 1)

    def _down(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while heard := far.recv(65536):
                near.sendall(heard)


def _some(spoken: Any, count: int) -> bytes:
    said: bytes = spoken.read(count)
    if len(said) < count:
        raise EOFError
    return said


def in_a_pipeline(
    _: BatchStatements, hand: Executor, statement: BatchStatement, lines: Sequence[tuple[object, ...]]
) -> None:
    """The twin: line by line, as the driver does it."""
    assert isinstance(hand, Connection)
    if lines:
        hand.exec_driver_sql(statement.text, [(json.dumps([line]),) for line in lines])


@contextmanager
def beside(url: str, *, clean: bool = False) -> Iterator[PostgresLedger]:
    """The ledger as one of several workers has it."""
    ledger = PostgresLedger(url, hold=LockMode.SHARED, patience_s=3.0)
    try:
        ledger.ready_to_spend()
        yield ledger
    finally:
        ledger.close(clean=clean)


def recorded(ledger: PostgresLedger, wanted: Sequence[Request]) -> list[object]:
    """All of these are bought at once."""

    async def together() -> list[object]:
        return await asyncio.gather(*(ledger.apply(reserve(one, one.request_id)) for one in wanted))

    return asyncio.run(together())


def messages_of_a_batch(url: str, bought: Sequence[Request]) -> str:
    """What is sent to the server while these are recorded."""
    relay = Relay(url)
    try:
        with beside(relay.through()) as ledger:
            relay.listen()
            assert all(isinstance(one, Applied) for one in recorded(ledger, bought))
            return relay.kinds
    finally:
        relay.end()


@pytest.fixture
def planned(postgres: str) -> list[Request]:
    """Requests of a run that are not bought yet."""
    rows = requests(40)
    with beside(postgres) as ledger:
        start(LedgerQueries(ledger), rows)
    return rows


def half_said(kinds: str) -> str:
    """Statements of which only the server's next message tells that they are over: none, in a batch that is safe."""
    return kinds.replace("ES", "")


def test_the_server_learns_the_end_of_each_statement(postgres: str, planned: list[Request]) -> None:
    kinds = messages_of_a_batch(postgres, planned[:TOGETHER])
    assert kinds.count("E") > 5, "all of a batch was heard"
    assert "E" not in half_said(kinds), kinds


def test_the_driver_s_own_way_is_found_out(
    postgres: str, planned: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchStatements, "run", in_a_pipeline)
    assert "E" in half_said(messages_of_a_batch(postgres, planned[:TOGETHER]))


def test_who_only_reads_may_think_between_two_questions(postgres: str, planned: list[Request]) -> None:
    asked = "SHOW idle_in_transaction_session_timeout"
    with beside(postgres) as ledger, ledger.engine.connect() as writer, ledger.reader.connect() as reader:
        values = [one.exec_driver_sql(asked).scalar_one() for one in (writer, reader)]
    assert values == ["5s", "15min"]


def test_lines_may_say_the_same_in_different_types(postgres: str, planned: list[Request]) -> None:
    """A moment may be a whole number of seconds in one line, and have a fraction in another."""
    lines = [(one.request_id, 1, at, "note", "planned", "") for one, at in zip(planned, (5, 5.5), strict=False)]
    with beside(postgres) as ledger, ledger.engine.begin() as connection:
        ledger._sql.save(connection, [], lines)
    assert read(postgres, "select at from history order by seq") == [(5.0,), (5.5,)]


def ended_one_after_the_other(url: str) -> str:
    """The ledger's rows when two hosts that shared it have gone; the first one's session ends late at the server."""
    relay = Relay(url, keeps_farewells=True)
    try:
        with beside(url, clean=True), beside(relay.through(), clean=True):
            pass
        return str(read(url, "select value from meta where name = 'clean'")[0][0])
    finally:
        relay.end()


@pytest.mark.usefixtures("planned")
def test_the_lock_is_free_as_soon_as_a_ledger_is_closed(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended_one_after_the_other(postgres) == "yes", "the last one out closed it"
    monkeypatch.setattr(LedgerLock, "let_go", lambda *_: None)
    assert ended_one_after_the_other(postgres) == "no", "the twin leaves that to the server"


def moments_that_stop_all(url: str, planned: Sequence[Request]) -> Iterator[int]:
    """Within which of the messages that bring values a host may fall silent so that no other host can record."""
    whole = messages_of_a_batch(url, planned[:TOGETHER])
    rest = iter(planned[TOGETHER:])
    for number in (number for number, kind in enumerate(whole) if kind == "B"):
        relay = Relay(url, cut=number)
        with beside(url) as other, ThreadPoolExecutor(1) as aside, beside(relay.through()) as silent:
            relay.listen()
            aside.submit(recorded, silent, planned[-TOGETHER:])
            try:
                assert relay.fell_silent.wait(30)
                recorded(other, [next(rest)])
            except LedgerUnavailableError:
                yield number
            finally:
                relay.end()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and who waits for it lose patience after a second."""
    soon = "SET idle_in_transaction_session_timeout = '1s'; SET lock_timeout = '1s'"
    monkeypatch.setattr(sessions, "_WRITER", soon)
    monkeypatch.setattr(sessions, "IDLE_LOCK_HOLDER_S", 1)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("impatient")
def test_a_host_frozen_within_a_message_blocks_no_other(postgres: str, planned: list[Request]) -> None:
    assert list(moments_that_stop_all(postgres, planned)) == []


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("impatient")
def test_the_server_alone_would_wait_for_the_rest(
    postgres: str, planned: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "end_idle_lock_holder", lambda connection: [])
    assert next(moments_that_stop_all(postgres, planned), None) is not None
