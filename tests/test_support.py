"""The ground under the other tests: factories build what they promise, and nothing connects off this machine."""

from __future__ import annotations

import socket

import pytest
import pytest_socket

from pipeline.records import State, request_key
from tests.support.factories import make_attempt, make_cell, make_request


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_connections_off_loopback_are_refused() -> None:
    with socket.socket() as sock, pytest.raises(pytest_socket.SocketConnectBlockedError):
        sock.connect(("192.0.2.1", 80))


def test_connections_on_loopback_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        assert sock.getpeername() == server.getsockname()


def test_a_made_request_carries_the_true_key_of_what_it_buys() -> None:
    request = make_request(seed=11, take=2)
    assert request.params.seed == 11
    assert request.request_id == request_key(request.params, take=2, gateway="sandbox")


def test_factories_take_record_fields_and_paid_fields_alike() -> None:
    assert make_cell(seed=8, tags=("hero",)).tags == ("hero",)
    attempt = make_attempt(model="dop-turbo", state=State.DONE)
    assert (attempt.params.model, attempt.state) == ("dop-turbo", State.DONE)
