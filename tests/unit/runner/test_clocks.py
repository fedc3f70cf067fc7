"""A wall clock that fails for a moment."""

from __future__ import annotations

from pipeline.runner.clocks import GuardedClock


def test_a_clock_that_raises_is_counted_on_from_its_last_reading() -> None:
    readings: list[float | Exception] = [1000.0, 1001.0, OSError("no clock"), 1009.0]
    seconds = iter([10.0, 11.0, 13.5, 19.0])

    def wall() -> float:
        reading = readings.pop(0)
        if isinstance(reading, Exception):
            raise reading
        return reading

    clock = GuardedClock(wall, lambda: next(seconds))
    assert [clock(), clock(), clock()] == [1001.0, 1003.5, 1009.0]
