"""The nginx example of docs/guides/callbacks.md, word by word but its ports and certificate, in a real nginx."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.config.loader import load
from pipeline.gateway.webhook_tokens import PATH
from pipeline.runner.callback_inbox import keys_for
from tests.support.cli_driver import Dop, ended, shots, wait_for
from tests.support.webhook_catcher import serving

REPO = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt install nginx-light"),
]

SECRET = "X-Webhook-Secret-Key"
REQUEST = "ab" * 16


def example() -> str:
    found = re.search(
        r"```nginx\n(.*?)```", (REPO / "docs" / "guides" / "callbacks.md").read_text(encoding="utf-8"), re.S
    )
    assert found
    return found[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hooks.example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    return folder / "cert.pem", folder / "key.pem"


class Nginx:
    """nginx with the example: TLS on `port`, and the same server in clear on `clear_port` for the sandbox."""

    def __init__(self, folder: Path, receiver_port: int) -> None:
        folder.mkdir()
        self.folder, self.port, self.clear_port = folder, free_port(), free_port()
        cert, key = certificate(folder)
        config = example()
        for was, now in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl; listen 127.0.0.1:{self.clear_port};"),
            ("/etc/letsencrypt/live/hooks.example.com/fullchain.pem", str(cert)),
            ("/etc/letsencrypt/live/hooks.example.com/privkey.pem", str(key)),
            ("http://127.0.0.1:8099", f"http://127.0.0.1:{receiver_port}"),
        ):
            assert config.count(was) == 1, was
            config = config.replace(was, now)
        logs = f"access_log {folder}/access.log; error_log {folder}/error.log info;"
        temps = " ".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""  # another user can't look into the test's own folder
        main = f"{user} daemon off; pid {folder}/pid; error_log {folder}/main.log; worker_processes 1; events {{}}"
        self.config = folder / "nginx.conf"
        self.config.write_text(f"{main}\nhttp {{\n{logs}\n{temps}\n{config}}}\n", encoding="utf-8")

    def __enter__(self) -> Nginx:
        assert NGINX is not None
        words = [NGINX, "-p", str(self.folder), "-c", str(self.config), "-e", str(self.folder / "main.log")]
        checked = subprocess.run([*words, "-t"], capture_output=True, text=True, timeout=30, check=False)
        assert checked.returncode == 0, checked.stderr
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def logged(self) -> str:
        return "".join(log.read_text(errors="replace") for log in self.folder.glob("*.log"))

    async def call(self, method: str, path: str, data: bytes = b"{}", **headers: str) -> int:
        """The status of one call over TLS, with the certificate checked as a gateway would."""
        context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        address = f"https://127.0.0.1:{self.port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, address, data=data, headers=headers, ssl=context, server_hostname="hooks.example.com"
            ) as answer,
        ):
            return answer.status


@pytest.fixture
def proxied(rehearsal: Dop, tmp_path: Path) -> Iterator[tuple[Dop, Nginx]]:
    receiver = serving(rehearsal)
    assert receiver.stdout is not None
    port = int(receiver.stdout.readline().strip().rpartition(":")[2])
    with Nginx(tmp_path / "nginx", port) as nginx:
        yield rehearsal, nginx
    receiver.terminate()
    assert ended(receiver).code == 0


async def test_calls_reach_the_receiver_and_nothing_else_does(proxied: tuple[Dop, Nginx]) -> None:
    dop, nginx = proxied
    keys = keys_for(load(None, overrides={"outputs.dir": str(dop.outputs)}, environ={}))
    token, secret = keys.token(REQUEST, 1), keys.secret(REQUEST, 1)
    path = PATH + token
    assert await nginx.call("POST", path, b'{"job_set_id": "job-1"}', **{SECRET: secret}) == 204
    assert await nginx.call("POST", path, b"{}", **{SECRET: "whsec_wrong"}) == 401
    assert await nginx.call("POST", path[:-1] + ("0" if path[-1] != "0" else "1")) == 404
    assert await nginx.call("GET", path) == 403
    assert await nginx.call("POST", "/") == 404
    assert await nginx.call("POST", "/other/dop") == 404
    assert await nginx.call("POST", path, b"x" * 65_537) == 413
    assert await nginx.call("POST", path, b"x" * 65_000, **{SECRET: secret}) == 204
    spooled = dop.outputs / "callbacks" / "sandbox" / f"{REQUEST}-1.json"
    wait_for(spooled.is_file)
    assert sorted(json.loads(spooled.read_text())) == [[], ["job-1"]]  # each call that proved itself
    assert token not in nginx.logged()
    assert token[:40] not in nginx.logged()


async def test_a_flood_is_cut_by_the_proxy_and_a_slow_sender_by_its_deadline(proxied: tuple[Dop, Nginx]) -> None:
    _, nginx = proxied
    statuses = await asyncio.gather(*(nginx.call("POST", f"{PATH}unknown") for _ in range(200)))
    assert set(statuses) == {404, 503}
    assert statuses.count(404) >= 100
    reader, writer = await asyncio.open_connection("127.0.0.1", nginx.clear_port)
    writer.write(b"POST /dop/x HTTP/1.1\r\nHost: hooks.example.com\r\n")
    await writer.drain()
    async with asyncio.timeout(20):
        config = await reader.read()
    writer.close()
    assert config.startswith(b"HTTP/1.1 408") or config == b""


def test_a_run_is_called_through_the_proxy_and_polls_once_a_job(rehearsal: Dop, tmp_path: Path) -> None:
    port = free_port()
    with Nginx(tmp_path / "nginx", port) as nginx:
        config = (f"webhook.listen=127.0.0.1:{port}", f"webhook.public_url=http://127.0.0.1:{nginx.clear_port}")
        sets = [word for one in (*config, "poll.max_s=60s", "sandbox.size=180p") for word in ("--set", one)]
        end = rehearsal.call("run", rehearsal.csv(shots(8)), "--webhook", *sets)
        assert end.code == 0, end.err
        assert sum(int(row["polls"]) for row in rehearsal.rows()) == 8
        assert PATH not in nginx.logged()
