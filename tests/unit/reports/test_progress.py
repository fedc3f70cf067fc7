"""The bar and the plain lines: what they say, how often, and where they stay silent."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import re
import struct
import sys
import termios
from typing import Any

import pytest

from pipeline.reports.progress import (
    BUYING,
    FINISHED,
    PLAIN_LINE_S,
    REFRESH_S,
    ProgressDisplay,
    ProgressSnapshot,
    bar_line,
    eta_text,
    may_colour,
    money_text,
    pace_text,
    plain_line,
    span,
    strip_control_chars,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_snapshot(**only_what_matters: Any) -> ProgressSnapshot:
    fields: dict[str, Any] = {
        "phase": "generating",
        "total": 120,
        "finished": 12,
        "done": 11,
        "failed": 1,
        "in_flight": 30,
        "confirmed_microusd": 1_620_000,
        "worst_microusd": 5_670_000,
        "rate_per_s": 0.5,
        "throttled": 2,
        "eta_s": 200.0,
    }
    return ProgressSnapshot(**fields | only_what_matters)


def test_the_plain_line_says_counts_money_pace_and_time_left() -> None:
    assert plain_line(make_snapshot()) == (
        "generating: 12/120; 11 done, 30 in flight, 1 failed; $1.620 (worst $5.670); 30/min, 2 x 429; ETA 3 min 20 s"
    )


def test_nothing_is_said_of_trouble_that_is_not_there() -> None:
    calm = make_snapshot(failed=0, throttled=0, worst_microusd=1_620_000, rate_per_s=2.0, eta_s=None)
    assert money_text(calm) == "$1.620"
    assert (pace_text(calm), eta_text(calm)) == ("2.0/s", "ETA ?")
    assert "failed" not in plain_line(calm)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3900, "1 h 05 min"),
        (97200, "1 d 03 h"),
    ],
)
def test_spans_are_readable(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_without_a_terminal_there_is_a_line_a_minute_and_no_bar() -> None:
    clock, stream = Clock(), io.StringIO()
    with ProgressDisplay(clock=clock, stream=stream, environ={}) as progress:
        for _ in range(1210):
            progress.update(make_snapshot())
            clock.now += PLAIN_LINE_S / 600
    assert stream.getvalue().count("\n") == 3
    assert "\r" not in stream.getvalue()


@pytest.mark.parametrize("columns", [40, 60, 79, 119, 400])
def test_the_bar_fits_the_terminal_and_leaves_out_whole_parts(columns: int) -> None:
    line = bar_line(make_snapshot(planned=78), columns)
    bar = re.search(r"\{bar:(\d+)\}", line)
    assert bar
    shown = line.replace(bar[0], "#" * int(bar[1]))
    assert len(shown) <= max(columns, len("generating 12/120 |######| $1.620 (worst $5.670)"))
    assert line.partition("| ")[2].startswith("$1.620 (worst $5.670)")
    whole = ["$1.620 (worst $5.670)", "ETA 3 min 20 s", "30 in flight, 1 failed", "30/min, 2 x 429"]
    assert line.partition("| ")[2].split("  ") == whole[: {40: 1, 60: 1, 79: 2, 119: 4, 400: 4}[columns]]


def test_while_buying_the_bar_shows_what_is_bought_and_at_the_end_nothing_that_is_left() -> None:
    assert bar_line(make_snapshot(phase=BUYING, planned=50)).startswith("buying 70/120 |")
    assert bar_line(make_snapshot(phase=FINISHED, eta_s=0.0)).endswith("| $1.620 (worst $5.670)  1 failed")


def test_no_pace_is_shown_when_nothing_is_left_to_buy() -> None:
    assert "/min" not in bar_line(make_snapshot(planned=0))


def test_each_phase_leaves_one_line_with_how_it_ended() -> None:
    stream = Terminal()
    with ProgressDisplay(clock=Clock(), stream=stream, environ={"NO_COLOR": "1"}) as progress:
        progress.update(make_snapshot(phase=BUYING, total=3, finished=0, planned=3))
        progress.update(make_snapshot(phase=BUYING, total=3, finished=0, planned=1))
        progress.update(make_snapshot(phase="collecting", total=3, finished=1, planned=0))
        progress.update(make_snapshot(phase=FINISHED, total=3, finished=3, planned=0))
    left = [line.rpartition("\r")[2].split(" |")[0] for line in stream.getvalue().split("\n")[:-1]]
    assert left == ["buying 3/3", "finished 3/3"]


def test_a_phase_with_braces_is_shown_as_it_is() -> None:
    stream = Terminal()
    with ProgressDisplay(clock=Clock(), stream=stream, environ={"NO_COLOR": "1"}) as progress:
        progress.update(make_snapshot(phase="{bar} {x}"))
    assert "{bar} {x} 12/120" in stream.getvalue()


def test_a_new_phase_is_shown_at_once() -> None:
    clock, stream = Clock(), io.StringIO()
    with ProgressDisplay(clock=clock, stream=stream, environ={}) as progress:
        progress.update(make_snapshot(phase="submitting"))
        progress.update(make_snapshot(phase="collecting"))
    assert [line.split(":")[0] for line in stream.getvalue().splitlines()] == ["submitting", "collecting"]


@pytest.mark.parametrize("stream_type", [io.StringIO, Terminal])
def test_quiet_says_nothing(stream_type: type[io.StringIO]) -> None:
    stream = stream_type()
    with ProgressDisplay(clock=Clock(), stream=stream, quiet=True, environ={}) as progress:
        progress.update(make_snapshot())
    assert stream.getvalue() == ""


def test_no_progress_means_plain_lines_on_a_terminal() -> None:
    stream = Terminal()
    with ProgressDisplay(clock=Clock(), stream=stream, show_bar=False, environ={}) as progress:
        progress.update(make_snapshot())
    assert stream.getvalue() == plain_line(make_snapshot()) + "\n"


def test_the_bar_is_drawn_at_most_five_times_a_second_and_ends_with_the_latest() -> None:
    clock, stream = Clock(), Terminal()
    with ProgressDisplay(clock=clock, stream=stream, environ={"NO_COLOR": "1", "COLUMNS": "200"}) as progress:
        for finished in range(100):
            progress.update(make_snapshot(finished=finished))
            clock.now += REFRESH_S / 10
    drawn = [part for part in stream.getvalue().split("\r") if "generating" in part]
    assert 10 <= len(drawn) <= 14
    assert "99/120" in drawn[-1]


def test_the_bar_has_no_colour_when_asked_not_to() -> None:
    for environ, coloured in (
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, True),
        ({"NO_COLOR": ""}, True),
    ):
        stream = Terminal()
        with ProgressDisplay(clock=Clock(), stream=stream, environ=environ) as progress:
            progress.update(make_snapshot())
        assert ("\x1b[3" in stream.getvalue()) is coloured
        assert may_colour(environ) is coloured


def test_names_from_a_manifest_cannot_steer_the_terminal() -> None:
    assert strip_control_chars("a\x1b[2Jb\rc\u202ed\x9be\ud800 水") == "a\\x1b[2Jb\\rc\\u202ed\\x9be\\ud800 水"
    stream = Terminal()
    with ProgressDisplay(clock=Clock(), stream=stream, environ={"NO_COLOR": "1"}) as progress:
        progress.print_line("row \x1b[31mlake\x07 refused")
    assert stream.getvalue().strip("\r\n ") == "row \\x1b[31mlake\\x07 refused"


def test_warnings_go_above_the_bar_and_keep_their_level(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    logger = logging.Logger("shown")
    console = logging.StreamHandler(stream)
    console.setLevel(logging.WARNING)
    logger.addHandler(console)
    with ProgressDisplay(clock=Clock(), loggers=[logger], environ={"NO_COLOR": "1"}) as progress:
        progress.update(make_snapshot())
        logger.info("not asked for")
        logger.warning("row lake: unknown")
    assert "not asked for" not in stream.getvalue()
    lines = stream.getvalue().replace("\r", "\n").split("\n")
    assert "row lake: unknown" in lines
    assert lines.index("row lake: unknown") < max(at for at, line in enumerate(lines) if "generating" in line)
    assert logger.handlers == [console]


def test_a_logger_without_a_console_handler_stays_silent_under_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    with ProgressDisplay(clock=Clock(), loggers=[logger], environ={}):
        logger.warning("only for the file")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("columns", "has_bar"), [(0, False), (10, False), (80, True)])
def test_a_terminal_without_room_for_a_bar_gets_plain_lines(columns: int, has_bar: bool) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(follower, "w") as stream, ProgressDisplay(clock=Clock(), stream=stream, environ={}) as progress:
        progress.update(make_snapshot())
    shown = os.read(leader, 4096).decode()
    os.close(leader)
    assert ("generating: 12/120;" in shown) is not has_bar
    assert ("generating 12/120 |" in shown) is has_bar
