"""A real PostgreSQL server for tests: started once a session, a database of its own for every test, durable as in life.

How to use: ask for the fixture `postgres` and get the URL of an empty database, which is dropped after the test:

    def test_something(postgres: str) -> None:
        ledger = Ledger.at(postgres)  # postgresql://postgres@127.0.0.1:PORT/NAME

`postgres_server` is the server itself: `server.new_database()`, `server.drop(url)`, `server.restart()`,
`server.stop()`, `server.start()`, `server.crash()` (no shutdown checkpoint: the next start recovers). It keeps its port
and data over restarts. A test that stops it starts it again, since the session shares it. Every password is accepted.

It runs Debian's server (`apt-get install postgresql`), as the user `postgres` where the tests run as root: initdb
1.2 s, start 0.2 s, a database 0.05 s. Where there is none, or no psycopg, the tests are skipped with the reason; with
CI=1 set they fail instead.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

SERVER_USER = "postgres"
MAX_WAIT_S = 240
"""A shutdown writes everything to disk, which takes a busy machine more than a minute."""
_numbers = itertools.count(1)


class PostgresServer:
    """One server in a temporary folder, reached on a loopback port."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._home = Path(tempfile.mkdtemp(prefix="dop-postgres-"))
        self._owner = SERVER_USER if os.getuid() == 0 else None
        if self._owner is not None:
            shutil.chown(self._home, self._owner)
        self._data = self._home / "data"
        self.port = _free_port()
        self._keeper = self._kept()
        self._call("initdb", "-D", str(self._data), "-U", SERVER_USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")

    def _kept(self) -> subprocess.Popen[bytes]:
        """A shell that ends the server and removes its folder when this process is gone, however it went."""
        script = 'read -r _; "$0" -D "$1/data" -m immediate -w stop; rm -rf "$1"'
        return subprocess.Popen(
            ["sh", "-c", script, str(self._binaries / "pg_ctl"), str(self._home)],
            cwd="/",
            user=self._owner,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _call(self, program: str, *args: str) -> None:
        with (self._home / "stderr").open("w") as stderr:  # a pipe would be inherited by the server, and never end
            done = subprocess.run(
                [self._binaries / program, *args],
                cwd=self._home,
                user=self._owner,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=MAX_WAIT_S,
                check=False,
            )
        if done.returncode != 0:
            said = (self._home / "stderr").read_text() + self.log()
            raise RuntimeError(f"{program} failed: {said[-2000:]}")

    def log(self) -> str:
        """What the server wrote."""
        log = self._home / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = f"-p {self.port} -k {self._home} -c listen_addresses=127.0.0.1 -c max_connections=200"
        self._call("pg_ctl", "-D", str(self._data), "-l", str(self._home / "log"), "-o", options, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Ends the server: `fast` cuts every connection, `immediate` is a crash."""
        self._call("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "-t", str(MAX_WAIT_S), "stop")

    def crash(self) -> None:
        """Ends the server as a power cut of the process would: the next start recovers from its log."""
        self.stop("immediate")

    def restart(self) -> None:
        """Down and up again; every connection is cut."""
        self.stop()
        self.start()

    def url(self, name: str) -> str:
        """The URL of a database of this server."""
        return f"postgresql://{SERVER_USER}@127.0.0.1:{self.port}/{name}"

    def new_database(self) -> str:
        """Makes an empty database; its URL."""
        name = f"test_{next(_numbers)}"
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drops a database, with all connections to it."""
        self.sql(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def sql(self, statement: str) -> None:
        """One statement, outside of any transaction, in the server's own database."""
        import psycopg

        with closing(psycopg.connect(self.url("postgres"), autocommit=True)) as connection:
            connection.execute(statement.encode())

    def trust(self, subnet: str) -> None:
        """Admits clients from these addresses; the server listens on loopback all the same."""
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {subnet} trust\n")
        self.sql("SELECT pg_reload_conf()")

    def remove(self) -> None:
        """Ends the server if it runs, and removes its folder."""
        self._keeper.communicate(timeout=MAX_WAIT_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_binaries() -> Path | None:
    """The folder of the newest PostgreSQL server that this machine has."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    return max(found, key=lambda folder: folder.parent.name.rjust(4), default=None)


def _missing() -> str | None:
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (pip install 'psycopg[binary]')"
    if server_binaries() is None:
        return "no PostgreSQL server on this machine (Debian: apt-get install postgresql)"
    return None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's server, running."""
    missing = _missing()
    if missing is not None:
        if os.environ.get("CI") not in (None, "", "0"):
            pytest.fail(f"not in CI: {missing}")
        pytest.skip(missing)
    binaries = server_binaries()
    assert binaries is not None
    server = PostgresServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database that is this test's own."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop(url)
