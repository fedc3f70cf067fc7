"""The doubles and folders that the acceptance tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_driver import KEY, Dop, Here
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.s3_server import S3Server

Opened = tuple[Dop, GatewayDouble]


@pytest.fixture
def person(request: pytest.FixtureRequest) -> type[Dop]:
    """How the command is called: in this process, unless the test is marked `process`."""
    return Dop if request.node.get_closest_marker("process") else Here


@pytest.fixture
def against(tmp_path: Path, person: type[Dop]) -> Iterator[Callable[..., Opened]]:
    """Makes a gateway double of a script and a user's folder pointed at it."""
    with ExitStack() as stack:

        def make(**script: Any) -> Opened:
            double = stack.enter_context(GatewayDouble(Script(key=KEY, **script)))
            dop = person(folder=tmp_path, base_url=double.base_url)
            stack.callback(dop.end_all)
            return dop, double

        yield make


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    """An object store on this machine."""
    with S3Server() as server:
        yield server


@pytest.fixture
def rehearsal(tmp_path: Path, person: type[Dop]) -> Iterator[Dop]:
    """A user's folder pointed at the embedded sandbox."""
    dop = person(folder=tmp_path)
    yield dop
    dop.end_all()
