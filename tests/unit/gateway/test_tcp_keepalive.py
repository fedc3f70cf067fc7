"""A connection to the gateway whose other end is gone breaks within half a minute."""

from __future__ import annotations

import socket
import sys

import pytest

from pipeline.gateway.tcp_keepalive import keepalive_socket

PLACE = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 9))


def test_the_peer_is_asked_whether_it_is_there() -> None:
    with keepalive_socket(PLACE) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name their options otherwise")
def test_a_silent_peer_is_given_up_within_half_a_minute() -> None:
    with keepalive_socket(PLACE) as made:
        idle_s, gap_s, tries = (
            made.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle_s + gap_s * tries <= 30
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000
