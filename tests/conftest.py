"""The ground rules of every test: no connection leaves the machine, and no setting of the user's shell leaks in."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket
from hypothesis import HealthCheck, settings

from pipeline.sandbox.rendering import renderer
from pipeline.sandbox.rendering.clip import ClipPlan
from pipeline.sandbox.rendering.clip import render as really_render
from tests.support.ledgers import Place
from tests.support.postgres import postgres, postgres_server

__all__ = ["postgres", "postgres_server"]

_STATE_FOLDERS = itertools.count()

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

for _number in (signal.SIGHUP, signal.SIGINT):
    # A runner in the background may ignore these, and every command that a test starts would inherit it and obey.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL if _number is signal.SIGHUP else signal.default_int_handler)

LOOPBACK = ["127.0.0.1", "::1", "localhost"]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """What `-n auto` means: half of the fast tests' time is waiting for other processes, and more of the long ones'."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # as xdist itself reads it
    return (os.cpu_count() or 1) * (3 if config.option.markexpr == "long" else 2)


@pytest.fixture(autouse=True)
def _loopback_only() -> None:
    """Connections to any other host raise SocketConnectBlockedError; Unix sockets (event loops, PostgreSQL) work."""
    pytest_socket.socket_allow_hosts(LOOPBACK, allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A key, a DOP_ setting or a state folder of the user who runs the tests must not steer them."""
    for name in [name for name in os.environ if name == "PIXAZO_API_KEY" or name.startswith("DOP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{next(_STATE_FOLDERS)}"))


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.long)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a ledger may be: a file, and a database of PostgreSQL. A test that asks for it holds on both."""
    if request.param == "file":
        return tmp_path / "ledger.db"
    url: str = request.getfixturevalue("postgres")
    return url


@pytest.fixture(scope="session", autouse=True)
def _each_clip_drawn_once() -> Iterator[None]:
    """A clip that an earlier test's sandbox drew is copied: the same plan gives the same bytes, as its tests show."""
    drawn: dict[ClipPlan, bytes] = {}

    def render(plan: ClipPlan, target: Path) -> None:
        if plan in drawn:
            target.write_bytes(drawn[plan])
            return
        really_render(plan, target)
        drawn[plan] = target.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "render", render)
        yield
