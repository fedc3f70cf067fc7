"""`webhook serve`: the callback receiver as a process of its own, for runs that come and go. Spends nothing."""

from __future__ import annotations

import argparse
import asyncio

from pipeline.cli.arguments import print_warnings, settings_of
from pipeline.config.gateway_address import is_loopback
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.runner.callback_inbox import inbox_of, keys_for, listen_address
from pipeline.runner.signals import handled_signals
from pipeline.runner.webhook_server import WebhookServer


def serve(args: argparse.Namespace) -> int:
    """Takes callbacks until INT, TERM or HUP; `dop run --webhook` and `dop collect --webhook` read what it kept."""
    settings = settings_of(args)
    if settings.webhook.listen is None:
        raise UsageError("set webhook.listen, e.g. --set webhook.listen=127.0.0.1:8099")
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in handled_signals():
        loop.add_signal_handler(number, stopped.set)
    spool = inbox_of(settings)

    def taken(delivery: CallbackDelivery) -> None:
        if not delivery.is_self_test:
            spool.keep(delivery)

    receiver = WebhookServer(
        keys_for(settings),
        taken,
        warn=lambda text: print_warnings([text]),
        signing_secret=settings.webhook.signing_secret,
    )
    host, port = listen_address(settings)
    try:
        bound = await receiver.start(host, port)
    except OSError as error:
        raise UsageError(f"webhook.listen {host}:{port} can't be had ({error.strerror})") from None
    if not is_loopback(host):
        print_warnings([f"{host} is reachable from other machines without TLS; a proxy belongs before it"])
    print(f"http://{'[' + host + ']' if ':' in host else host}:{bound}", flush=True)
    try:
        await stopped.wait()
    finally:
        await receiver.close()
