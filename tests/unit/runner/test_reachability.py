"""An outage is reported after 3 s, once, with its cause; a permanent fault ends a run that reached nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pipeline.gateway.responses import SendProof
from pipeline.runner.reachability import NOTICE_S, Reachability
from pipeline.runner.stop import StopSignal
from tests.support.virtual_time import in_virtual_time

REFUSED = "no connection to gateway.example:443: Connection refused"


Lines = list[str]
"""What the user was shown."""


def virtually(story: Callable[[Lines], Awaitable[None]]) -> Callable[[pytest.MonkeyPatch], None]:
    """The story as a test in virtual time."""

    def test(monkeypatch: pytest.MonkeyPatch) -> None:
        in_virtual_time(monkeypatch, lambda: story([]))

    return test


def reachability(lines: Lines, stop: StopSignal | None = None) -> Reachability:
    return Reachability("https://gateway.example", stop or StopSignal(), lines.append)


@virtually
async def test_an_outage_is_reported_once_and_its_end_too(lines: Lines) -> None:
    gateway = reachability(lines)
    gateway.failed(REFUSED, is_permanent=False)
    await asyncio.sleep(NOTICE_S - 0.1)
    assert lines == []
    gateway.failed(REFUSED, is_permanent=False)
    await asyncio.sleep(20)
    expected = f"the gateway https://gateway.example can't be reached: {REFUSED}; nothing is sent meanwhile"
    assert lines == [expected]
    assert REFUSED in gateway.pause_text
    gateway.reached()
    assert lines[1:] == ["the gateway can be reached again, after 23 s"]
    assert gateway.pause_text == ""


@virtually
async def test_a_short_outage_is_not_reported(lines: Lines) -> None:
    gateway = reachability(lines)
    gateway.failed(REFUSED, is_permanent=False)
    await asyncio.sleep(NOTICE_S - 0.1)
    gateway.reached()
    await asyncio.sleep(60)
    assert lines == []


@virtually
async def test_a_call_that_finds_no_connection_is_reported_before_it_fails(lines: Lines) -> None:
    gateway, proof = reachability(lines), SendProof()
    with gateway.watch(proof):
        await asyncio.sleep(NOTICE_S + 0.1)
        assert len(lines) == 1
        assert "no connection within 3 s" in lines[0]
        await asyncio.sleep(7)
    gateway.failed("no connection to gateway.example:443 in 10 s", is_permanent=False)
    await asyncio.sleep(60)
    assert len(lines) == 1


@virtually
async def test_a_call_that_was_sent_is_no_outage(lines: Lines) -> None:
    gateway, proof = reachability(lines), SendProof()
    with gateway.watch(proof):
        proof.sent = True
        await asyncio.sleep(300)
    assert lines == []


@virtually
async def test_a_permanent_fault_ends_the_run_at_once(lines: Lines) -> None:
    stop = StopSignal()
    reachability(lines, stop).failed("there is no host gateway.example: its name was not found", is_permanent=True)
    assert [reason.exit_code for reason in stop.reasons] == [7]
    assert "there is no host gateway.example" in stop.reasons[0].text


@virtually
async def test_a_gateway_that_was_reached_is_waited_for(lines: Lines) -> None:
    """A name that is not found in the middle of a run is the network's trouble, and passes."""
    stop = StopSignal()
    gateway = reachability(lines, stop)
    gateway.reached()
    gateway.failed("there is no host gateway.example: its name was not found", is_permanent=True)
    await asyncio.sleep(NOTICE_S + 0.1)
    assert stop.reasons == []
    assert len(lines) == 1
