"""A host's images are probed at a bounded rate, however quickly it answers."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.assets.image_probe import PROBES_PER_S, ImageProbe
from pipeline.assets.probe_results import ProbeResult, ProbeStatus
from tests.support.virtual_time import in_virtual_time


class QuickProbe(ImageProbe):
    """Its hosts answer at once."""

    async def _follow(self, url: str, etag: str) -> ProbeResult:
        return ProbeResult(kind=ProbeStatus.GOOD)


async def probed_s(*hosts: str, count: int) -> float:
    """Seconds that `count` images of each host take, eight probes at a time as in a run."""
    urls = iter([f"https://{host}/{number}.jpg" for number in range(count) for host in hosts])
    began = asyncio.get_running_loop().time()
    async with QuickProbe(gateway_is_loopback=False) as probe, asyncio.TaskGroup() as group:

        async def work() -> None:
            for url in urls:
                await probe.probe(url)

        for _ in range(8):
            group.create_task(work())
    return asyncio.get_running_loop().time() - began


def test_a_host_that_answers_at_once_gets_no_more_than_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 3 * int(PROBES_PER_S)
    took_s = in_virtual_time(monkeypatch, lambda: probed_s("cdn.example.com", count=count))
    assert 2.0 <= took_s < 2.5, "the first second's probes go at once, then so many a second"


def test_a_few_images_wait_for_nothing_and_hosts_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ("a.example.com", "b.example.com", "c.example.com")
    assert in_virtual_time(monkeypatch, lambda: probed_s(*hosts, count=40)) < 0.1
