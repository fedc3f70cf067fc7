"""Hosts with a network of their own, whose cable can be pulled: namespaces on one bridge of this machine.

Each sees this machine's servers at 127.0.0.1, as everything here does, but through its cable: its own loopback is down
and the address is routed over the bridge. Nothing else is reached from there. Whatever was made goes when the process
that made it is gone, however it went.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

SUBNETS = 512
"""of 198.18.0.0/15, which is set aside for measuring networks: nothing real is there"""


class Cables:
    """`with Cables(3) as cables`: `cables.within(0)` are the words that start a command on the first host."""

    def __init__(self, hosts: int) -> None:
        number = os.getpid() % SUBNETS
        self.subnet = f"198.{18 + number // 256}.{number % 256}.0/24"
        self._bridge = f"dop{os.getpid()}"
        self._hosts = [f"{self._bridge}-{host}" for host in range(hosts)]
        self._ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "ip"
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Lays the cables; skips the test, with the reason, where this machine can't."""
        self._keeper = self._kept()
        try:
            self._lay()
        except (OSError, subprocess.CalledProcessError) as error:
            self._remove()
            said = getattr(error, "stderr", None) or str(error)
            pytest.skip(f"no network namespaces here (root and iproute2 make them): {said.strip()}")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def within(self, host: int) -> list[str]:
        """Words that go before a command; the process that they start becomes the command's."""
        return ["nsenter", f"--net=/run/netns/{self._hosts[host]}"]

    def pull(self, host: int) -> None:
        """The host's cable is out: data in flight is lost without an error."""
        self._call("link", "set", self._hosts[host], "down")

    def plug(self, host: int) -> None:
        """The cable is in again."""
        self._call("link", "set", self._hosts[host], "up")

    def _lay(self) -> None:
        gateway = self._address(1)
        self._call("link", "add", self._bridge, "type", "bridge")
        self._call("address", "add", f"{gateway}/24", "dev", self._bridge)
        self._call("link", "set", self._bridge, "up")
        Path(f"/proc/sys/net/ipv4/conf/{self._bridge}/route_localnet").write_text("1")
        for number, host in enumerate(self._hosts):
            self._call("netns", "add", host)
            self._call("link", "add", host, "type", "veth", "peer", "name", "cable", "netns", host)
            self._call("link", "set", host, "master", self._bridge, "up")
            self._call("-n", host, "address", "add", f"{self._address(2 + number)}/24", "dev", "cable")
            self._call("-n", host, "link", "set", "cable", "up")
            self._call("-n", host, "route", "add", "127.0.0.1", "via", gateway)
            here = "echo 1 >/proc/sys/net/ipv4/conf/cable/route_localnet"
            _run([*self.within(number), "sh", "-c", here])

    def _address(self, last: int) -> str:
        return self.subnet.replace(".0/24", f".{last}")

    def _call(self, *words: str) -> None:
        _run([self._ip, *words])

    def _kept(self) -> subprocess.Popen[bytes]:
        """A shell that takes the hosts away when this process is gone."""
        script = 'read -r _; for host; do "$0" link del "$host"; "$0" netns del "$host"; done; "$0" link del "${1%-*}"'
        return subprocess.Popen(
            ["sh", "-c", script, self._ip, *self._hosts],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _remove(self) -> None:
        if self._keeper is not None:
            self._keeper.communicate(timeout=30)


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=30)
