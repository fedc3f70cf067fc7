"""Coroutines as plain calls, also where an event loop runs already, as it does in a notebook."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from pipeline.runner import event_loop
from pipeline.runner.signals import FORWARDED, ForwardedSignals

T = TypeVar("T")


def wait_for(make: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run the coroutine that `make` makes to its end, and return its result.

    In a running event loop it runs in a thread of its own, and the caller's loop is blocked meanwhile. Ctrl-C (in a
    notebook: Interrupt the kernel) then reaches the run as it would in a terminal: the first one drains it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return event_loop.run(make())
    forwarded = ForwardedSignals()
    # Set for as long as the context is copied: only the thread's copy has it, and later calls here do not.
    token = FORWARDED.set(forwarded)
    context = copy_context()
    FORWARDED.reset(token)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="dop") as thread:
        future = thread.submit(context.run, lambda: event_loop.run(make()))
        # A loop, because the second interrupt has to reach the run as well.
        while True:
            try:
                return future.result()
            except KeyboardInterrupt:
                forwarded.send(signal.SIGINT)
