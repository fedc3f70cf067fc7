"""How a run looks while it runs: a bar on a terminal, one plain line a minute elsewhere; all of it on stderr.

Shows the snapshots it gets and decides nothing. The clock is handed in; no data ever goes to stdout from here.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TextIO

from tqdm import TqdmWarning, tqdm

from pipeline.records import usd

with warnings.catch_warnings():
    # In a notebook without ipywidgets this module of tqdm warns about a bar that is not used here.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.contrib.logging import logging_redirect_tqdm

REFRESH_S = 0.2
"""Shortest time between two drawings of the bar: quicker ones only flicker."""

PLAIN_LINE_S = 60.0
"""Time between two plain lines where there is no terminal."""

MIN_COLUMNS = 24
"""Of a terminal in which a bar says anything."""

BUYING, FINISHED, STOPPED = "buying", "finished", "stopped"
"""Phases that are shown in their own way: how many are bought, not how many have come; and nothing that is left."""

BAR_COLUMNS = (6, 24)
"""The narrowest bar, and the widest, which is also used where the terminal's width is unknown."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0, C1, the marks that turn the writing direction round, and halves of surrogate pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressSnapshot:
    """What one moment of a run looks like.

    `total` counts the requests of this run, `finished` those that need nothing more (done, failed, refused...).
    `throttled` counts the 429 answers so far. `eta_s` is None while nothing honest can be said.
    """

    phase: str
    total: int
    finished: int
    done: int = 0
    failed: int = 0
    refused: int = 0
    unknown: int = 0
    in_flight: int = 0
    planned: int = 0
    confirmed_microusd: int = 0
    worst_microusd: int = 0
    rate_per_s: float = 0.0
    throttled: int = 0
    eta_s: float | None = None
    pause: str = ""
    """until when and why nothing is bought; empty while something is"""


def strip_control_chars(text: str) -> str:
    """Text from a manifest or a gateway that can neither move the cursor nor recolour or reverse the terminal."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape", "backslashreplace").decode("ascii"), text)


def escape_controls(json_text: str) -> str:
    """JSON whose controls, bidirectional marks and halves of surrogate pairs are written as escapes: the same value."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)


def span(seconds: float) -> str:
    """A length of time for display: `45 s`, `3 min 20 s`, `1 h 05 min`, `2 d 03 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def counts_text(snapshot: ProgressSnapshot) -> str:
    """What is where; counts of zero that would mean trouble are not shown."""
    parts = (f"{snapshot.done} done", f"{snapshot.in_flight} in flight", _troubles_text(snapshot))
    return ", ".join(part for part in parts if part)


def _troubles_text(snapshot: ProgressSnapshot) -> str:
    troubles = {"failed": snapshot.failed, "refused": snapshot.refused, "unknown": snapshot.unknown}
    return ", ".join(f"{count} {word}" for word, count in troubles.items() if count)


def money_text(snapshot: ProgressSnapshot) -> str:
    """Money spent for sure, and the worst case where that is more."""
    spent = f"${usd(snapshot.confirmed_microusd)}"
    return (
        spent
        if snapshot.worst_microusd <= snapshot.confirmed_microusd
        else f"{spent} (worst ${usd(snapshot.worst_microusd)})"
    )


def pace_text(snapshot: ProgressSnapshot) -> str:
    """Submits a second or a minute, and the 429 answers where there were any."""
    per_minute = snapshot.rate_per_s * 60
    pace = f"{snapshot.rate_per_s:.1f}/s" if snapshot.rate_per_s >= 1 else f"{per_minute:.0f}/min"
    throttled = f", {snapshot.throttled} x 429" if snapshot.throttled else ""
    return pace + throttled


def eta_text(snapshot: ProgressSnapshot) -> str:
    """The time left, or that nothing honest can be said; while nothing is bought, until when."""
    if snapshot.pause:
        return strip_control_chars(snapshot.pause)
    return "ETA ?" if snapshot.eta_s is None else f"ETA {span(snapshot.eta_s)}"


def reached(snapshot: ProgressSnapshot) -> int:
    """How far the phase is: requests that are bought while buying, else those that need nothing more."""
    return snapshot.total - snapshot.planned if snapshot.phase == BUYING else snapshot.finished


def plain_line(snapshot: ProgressSnapshot) -> str:
    """One line for a log without a terminal."""
    is_over = snapshot.phase in (FINISHED, STOPPED)
    left = () if is_over else (pace_text(snapshot), eta_text(snapshot))
    parts = (counts_text(snapshot), money_text(snapshot), *left)
    return f"{strip_control_chars(snapshot.phase)}: {reached(snapshot)}/{snapshot.total}; {'; '.join(parts)}"


def bar_line(snapshot: ProgressSnapshot, columns: int | None = None) -> str:
    """The bar's line in tqdm's format language.

    Args:
        columns: what the terminal has; what does not fit is left out whole, the least important first. None: not known.
    """
    head = f"{strip_control_chars(snapshot.phase)} {reached(snapshot)}/{snapshot.total}"
    parts = _bar_parts(snapshot)
    narrowest, widest = BAR_COLUMNS
    room = _room(columns, head, parts)
    while len(parts) > 1 and room < narrowest:
        parts.pop()
        room = _room(columns, head, parts)
    bar = f"{{bar:{max(narrowest, min(widest, room))}}}"
    return f"{head.replace('{', '{{').replace('}', '}}')} |{bar}| {'  '.join(parts)}"


def _room(columns: int | None, head: str, parts: Sequence[str]) -> int:
    """Columns that are left for the bar."""
    return BAR_COLUMNS[1] if columns is None else columns - len(f"{head} || {'  '.join(parts)}")


def _bar_parts(snapshot: ProgressSnapshot) -> list[str]:
    """The parts behind the bar, the most important first. The bar itself shows what went well."""
    if snapshot.phase in (FINISHED, STOPPED):
        return [text for text in (money_text(snapshot), _troubles_text(snapshot)) if text]
    flying = ", ".join(text for text in (f"{snapshot.in_flight} in flight", _troubles_text(snapshot)) if text)
    pace = [pace_text(snapshot)] if snapshot.planned or snapshot.phase == BUYING else []
    # The bar of the buying stays on the screen: with nothing left to buy, an arrival time says nothing there.
    eta = [] if snapshot.phase == BUYING and not snapshot.planned else [eta_text(snapshot)]
    return [money_text(snapshot), *eta, flying, *pace]


class ProgressDisplay:
    """The bar or the plain lines of one run; a context manager, so that the terminal is left clean.

    Args:
        clock: monotonic seconds.
        show_bar: False for `--no-progress`: plain lines also on a terminal.
        quiet: no bar and no plain lines; warnings still come.
        loggers: loggers whose console handlers write above the bar; default the root logger.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        stream: TextIO | None = None,
        show_bar: bool = True,
        quiet: bool = False,
        loggers: Sequence[logging.Logger] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._clock = clock
        self._stream = UnbreakableStream(sys.stderr if stream is None else stream)
        self._quiet = quiet
        self._has_bar = show_bar and not quiet and _has_room(self._stream)
        self._loggers = [logging.getLogger()] if loggers is None else list(loggers)
        self._colour = may_colour(os.environ if environ is None else environ)
        self._bar: _Bar | None = None
        self._shown_at = float("-inf")
        self._latest: ProgressSnapshot | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._has_bar:
            for logger in self._loggers:
                self._redirect(logger)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None and self._latest is not None:
            self._draw(self._latest)
        self._close_bar()
        self._stack.close()

    def update(self, snapshot: ProgressSnapshot) -> None:
        """Shows the moment, unless the last one was shown too recently; a new phase is always shown."""
        before, self._latest = self._latest, snapshot
        new_phase = before is None or before.phase != snapshot.phase
        now = self._clock()
        if self._quiet or not (new_phase or now - self._shown_at >= self._interval_s):
            return
        self._shown_at = now
        if self._has_bar:
            if before is not None and new_phase:
                self._end_phase(before.phase, snapshot)
            self._draw(snapshot)
        else:
            self._stream.write(plain_line(snapshot) + "\n")
            self._stream.flush()

    def print_line(self, message: str) -> None:
        """Writes one line above the bar, with control characters escaped."""
        _Bar.write(strip_control_chars(message), file=self._stream)

    @property
    def _interval_s(self) -> float:
        return REFRESH_S if self._has_bar else PLAIN_LINE_S

    def _draw(self, snapshot: ProgressSnapshot) -> None:
        if self._bar is None:
            self._bar = _Bar(file=self._stream, dynamic_ncols=True, bar_format=bar_line(snapshot), total=1)
        bar = self._bar
        # At least 1: of a total of 0 tqdm draws no bar.
        bar.total, bar.n = max(1, snapshot.total), min(reached(snapshot), max(1, snapshot.total))
        bar.bar_format = bar_line(snapshot, _columns(self._stream))
        bar.colour = _colour_of(snapshot) if self._colour else None
        bar.refresh()

    def _end_phase(self, phase: str, now: ProgressSnapshot) -> None:
        """Leaves the phase's bar as it ended; what came last only sums up, and takes the place of the bar before it."""
        # The last figures of a phase are drawn under its own name, or its bar would stay as it was a fifth of a second
        # before.
        if now.phase not in (FINISHED, STOPPED):
            self._draw(replace(now, phase=phase))
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _redirect(self, logger: logging.Logger) -> None:
        """Console records go above the bar. A logger without a console handler stays silent, and levels stay as set:
        the redirection alone would give each logger a handler for everything.
        """
        console = [handler for handler in logger.handlers if _writes_to_console(handler)]
        if not console:
            return
        self._stack.enter_context(logging_redirect_tqdm(loggers=[logger], tqdm_class=_Bar))
        logger.handlers[-1].setLevel(min(handler.level for handler in console))


class UnbreakableStream(io.TextIOBase):
    """A text stream over one that may be closed, lose its reader or not exist: what can't be written is lost.

    MONEY: a terminal that is gone must not end a run in the middle of a purchase.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Write what can be written."""
        if self._stream is not None:
            with suppress(Exception):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        if self._stream is not None:
            with suppress(Exception):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal, as far as that can be asked."""
        with suppress(Exception):
            return self._stream is not None and self._stream.isatty()
        return False

    def __eq__(self, other: object) -> bool:
        """Whether it is the same stream: tqdm clears a bar before it writes to the bar's stream."""
        return self._stream is (other._stream if isinstance(other, UnbreakableStream) else other)

    def __hash__(self) -> int:
        return hash(self._stream)

    def fileno(self) -> int:
        """The file descriptor of the stream below.

        Raises:
            OSError: it has none.
        """
        if self._stream is None:
            raise OSError("there is no stream")
        return self._stream.fileno()


class _Bar(tqdm):  # type: ignore[type-arg] # generic in its stubs only
    monitor_interval = 0  # no thread beside ours: we draw when asked


def may_colour(environ: Mapping[str, str]) -> bool:
    """No colour when NO_COLOR is set to anything, or the terminal says it is dumb."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _colour_of(snapshot: ProgressSnapshot) -> str:
    return "yellow" if snapshot.unknown or snapshot.failed or snapshot.refused else "green"


def _columns(stream: UnbreakableStream) -> int | None:
    """The terminal's width but for the last column, in which some break the line; None where it has none."""
    try:
        return max(os.get_terminal_size(stream.fileno()).columns - 1, 0)
    except (OSError, ValueError):
        return None


def _has_room(stream: UnbreakableStream) -> bool:
    """Whether a bar can be drawn: a terminal, and not one that says it is no columns wide, as those of CI jobs do."""
    columns = _columns(stream) if stream.isatty() else 0
    return columns is None or columns >= MIN_COLUMNS


def _writes_to_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in {sys.stdout, sys.stderr}
