"""The token in a callback's path decides; a signature that cannot be verified is a warning, never a refusal."""

from __future__ import annotations

import base64
import json
import time
import uuid
from pathlib import Path
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook

from tests.support.cli_driver import ended, shots
from tests.support.hostile_gateway import HostileGateway, Order, against
from tests.support.webhook_catcher import serving

UNKNOWN = 3
ALONE = ("--no-download", "--webhook")


ACCOUNT_SECRET = "whsec_" + base64.b64encode(b"a secret of the account, not ours").decode()


def signed(event: dict[str, Any], secret: str, *, at: float | None = None) -> tuple[bytes, dict[str, str]]:
    """A body and its Standard Webhooks headers."""
    from datetime import UTC, datetime

    body = json.dumps(event).encode()
    moment = time.time() if at is None else at
    number = f"msg_{uuid.uuid4().hex}"
    signature = Webhook(secret).sign(number, datetime.fromtimestamp(moment, UTC), body.decode())
    stamp = {"webhook-id": number, "webhook-timestamp": str(int(moment)), "webhook-signature": signature}
    return body, {**stamp, "Content-Type": "application/json"}


def buy_with_signed_calls(folder: Path, *, environ: dict[str, str] | None = None, at: float | None = None) -> Any:
    """A run whose submit is unclear, and whose callback is signed with the account's secret."""

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        body, headers = signed({"request_id": order.job, "status": "completed"}, ACCOUNT_SECRET, at=at)
        gateway.aside(call(gateway, order, body, headers))
        return await gateway.lose(order)

    async def call(gateway: HostileGateway, order: Order, body: bytes, headers: dict[str, str]) -> None:
        await gateway.call_back(order, body, headers)

    with HostileGateway(submit=submit) as gateway:
        dop = against(folder, gateway)
        dop.environ = dict(environ or {})
        end = dop.buy(dop.csv(shots(1)), *ALONE)
        log = (dop.latest / "run.log").read_text(encoding="utf-8") if (dop.outputs / "latest").exists() else ""
        return end, gateway.calls, log


def test_a_call_that_is_signed_with_the_secret_of_the_account_is_taken(tmp_path: Path) -> None:
    end, calls, _ = buy_with_signed_calls(tmp_path)
    assert calls == [204], "the upstream does not repeat a call that got a 4xx"
    assert (end.code, end.counts) == (0, {"done": 1}), end.err


def test_a_signature_that_cannot_be_verified_is_a_logged_warning(tmp_path: Path) -> None:
    _, calls, log = buy_with_signed_calls(tmp_path)
    assert calls == [204]
    assert "signature" in log


def test_the_secret_of_the_account_comes_from_the_environment_and_verifies(tmp_path: Path) -> None:
    end, calls, log = buy_with_signed_calls(tmp_path, environ={"DOP_WEBHOOK__SIGNING_SECRET": ACCOUNT_SECRET})
    assert calls == [204], end.err
    assert (end.code, end.counts) == (0, {"done": 1}), end.err
    assert "signature" not in log
    assert ACCOUNT_SECRET not in end.err + log


def test_a_signature_of_long_ago_is_no_reason_to_refuse_a_call_with_the_right_token(tmp_path: Path) -> None:
    end, calls, _ = buy_with_signed_calls(
        tmp_path, environ={"DOP_WEBHOOK__SIGNING_SECRET": ACCOUNT_SECRET}, at=time.time() - 3600
    )
    assert calls == [204], end.err
    assert end.code == 0, end.err


def test_a_call_without_the_right_token_is_refused_however_it_is_signed(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        body, headers = signed({"request_id": order.job}, order.body["webhook_secret"])
        url = str(order.body["webhook_url"])
        order.body["webhook_url"] = url[:-1] + ("0" if url[-1] != "0" else "1")
        await gateway.call_back(order, body, headers)
        return await gateway.lose(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(1)), *ALONE)
        assert gateway.calls == [404]
        assert end.code == UNKNOWN, end.err


def test_a_secret_of_the_account_in_a_file_is_refused(tmp_path: Path) -> None:
    with HostileGateway() as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(1)), "--set", f"webhook.signing_secret={ACCOUNT_SECRET}")
        assert end.code == 2
        assert gateway.orders == []
        assert ACCOUNT_SECRET not in end.out + end.err


def test_a_receiver_in_trouble_answers_503_so_that_the_call_is_repeated(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        return await gateway.lose(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        receiver = serving(dop)
        assert receiver.stdout is not None
        address = receiver.stdout.readline().strip()
        listen = (
            "--set",
            f"webhook.listen={address.removeprefix('http://')}",
            "--set",
            f"webhook.public_url={address}",
        )
        lost = dop.buy(dop.csv(shots(1)), *ALONE, *listen)
        assert lost.code == UNKNOWN, lost.err
        spool = dop.outputs / "callbacks"
        if spool.exists():
            for path in sorted(spool.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            spool.rmdir()
        spool.write_text("a file where the folder for calls should be", encoding="utf-8")
        gateway.do(gateway.call_back(gateway.orders[0], {"job_set_id": gateway.orders[0].job}))
        receiver.terminate()
        said = ended(receiver).err
        assert gateway.calls == [503], said
