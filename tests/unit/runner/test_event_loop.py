"""A run takes uvloop where it is installed; its clock is read at each call, as asyncio's is."""

from __future__ import annotations

import asyncio
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.runner import event_loop


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_without_uvloop_the_loop_is_asyncio_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop.loop_factory() is None
    assert type(event_loop.run(_loop())) is type(asyncio.run(_loop()))


class FrozenClock(asyncio.SelectorEventLoop):
    """As uvloop has it: the time of the turn's beginning."""

    def time(self) -> float:
        return 0.0


def test_with_uvloop_the_loop_is_uvloop_s_with_the_time_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", SimpleNamespace(Loop=FrozenClock))
    found: Any = event_loop.run(_loop())
    assert isinstance(found, FrozenClock)
    assert found.time() == pytest.approx(time.monotonic(), abs=60)


@pytest.mark.skipif(event_loop.loop_factory() is None, reason="uvloop is not installed (the extra `fast`)")
def test_timers_of_the_real_one_ring_in_time() -> None:
    async def waits() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        began, began_at = loop.time(), time.monotonic()
        await asyncio.sleep(0.02)
        return loop.time() - began, time.monotonic() - began_at

    by_loop, real = event_loop.run(waits())
    assert by_loop == pytest.approx(real, abs=0.005)
    assert real >= 0.019
