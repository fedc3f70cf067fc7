"""`dop view` as a process of its own, and a client that may say any header and any path."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.cli_driver import Dop, ended

PATIENCE_S = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8")


@dataclass(slots=True, kw_only=True)
class View:
    """A running server. `address` is what it printed first: the page of a run."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        """The port it chose."""
        port = urlsplit(self.address).port
        assert port is not None
        return port

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def root(self) -> str:
        """The path of the list of runs."""
        return urlsplit(self.address).path.partition("runs/")[0]

    @property
    def page(self) -> str:
        """The path of the run's page."""
        return urlsplit(self.address).path

    def ask(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request; `path` is sent unchanged. Headers are named with underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            values = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.putrequest(method, path, skip_host="Host" in values)
            for name, value in values.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            found = connection.getresponse()
            return Answer(status=found.status, headers=dict(found.getheaders()), body=found.read())
        finally:
            connection.close()

    def save(self, *changes: object, **headers: str) -> Answer:
        """Sends changes of reviews as the page does."""
        return self.send({"changes": changes}, **headers)

    def send(self, content: object, **headers: str) -> Answer:
        """Sends any JSON to where reviews go."""
        values = {"Origin": self.origin, "Content_Type": "application/json"} | headers
        return self.ask(f"{self.page}reviews", method="POST", body=json.dumps(content).encode(), **values)

    @contextmanager
    def news(self, *, after: int, requests: int) -> Iterator[Iterator[tuple[str, object]]]:
        """The events of the page's stream as (name, data), as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", f"{self.page}events?after={after}&requests={requests}")
            found = connection.getresponse()
            assert found.status == 200, found.read()
            assert found.getheader("Content-Type") == "text/event-stream"
            yield _events(found)
        finally:
            connection.close()

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return ended(self.process).code


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, object]]:
    name = ""
    while line := answer.readline():
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


def start_view(dop: Dop, *words: object) -> View:
    """`dop view --no-open`, once it has said where."""
    process = dop.start("view", "--no-open", *words)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), address
    return View(process=process, address=address)
