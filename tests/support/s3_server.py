"""A real S3 server on 127.0.0.1: a process that can be killed and started again on its port. It forgets everything."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any, Self, cast

import obstore
from obstore.store import S3Store

BUCKET = "pictures"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-id", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}


class S3Server:
    """`with S3Server() as store`: the bucket BUCKET is there."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, on the port of the last time."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"Running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise AssertionError("the S3 server did not start")
        self.call("PUT", f"/{BUCKET}")

    def stop(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def call(self, method: str, path: str) -> bytes:
        """One call without a signature."""
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def put(self, name: str, content: bytes) -> None:
        """Puts an object there."""
        obstore.put(self._bucket(), name, content, use_multipart=False)

    def get(self, name: str) -> bytes:
        """What an object holds."""
        return bytes(obstore.get(self._bucket(), name).bytes())

    def dump(self) -> dict[str, bytes]:
        """Everything in the bucket, for a server that forgets it."""
        return {name: self.get(name) for name in self.names()}

    def fill(self, objects: dict[str, bytes]) -> None:
        """Puts it back."""
        for name, content in objects.items():
            self.put(name, content)

    def _bucket(self) -> S3Store:
        config = {name.lower(): value for name, value in CREDENTIALS.items()}
        options: Any = {"allow_http": True}
        return S3Store(BUCKET, endpoint=self.url, client_options=options, config=cast(Any, config))

    def ready(self) -> None:
        """Running, and empty."""
        if self._process is None:
            self.start()
        self.empty()

    def empty(self) -> None:
        """Makes it forget everything but the bucket."""
        self.call("POST", "/moto-api/reset")
        self.call("PUT", f"/{BUCKET}")

    def names(self) -> list[str]:
        """The objects in the bucket."""
        return re.findall(r"<Key>([^<]+)</Key>", self.call("GET", f"/{BUCKET}?list-type=2").decode())


def answers(url: str) -> tuple[int, bytes]:
    """Status and body of a plain GET, as a gateway would make it."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status), bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""
