"""What one HTTP call can end with: a status line from the gateway, or none. Pure records, no I/O.

`client` makes them, `classification` judges them. They never hold the key: the client blanks it out of every record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MAX_TRACE_CHARS = 100
"""Characters of a call's id that are kept; a UUID has 36."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A real status line came back.

    Attributes:
        headers: names in lower case, only those a judge may read.
        body: decompressed, at most the client's cap.
        complete: the body ended as its own framing says. False after a cut, a reset, a stall or at the cap.
        what: why the body is not complete, else empty.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = True
    what: str = ""

    @property
    def trace(self) -> str:
        """The id by which the gateway's support finds this call, as " (X-Correlation-ID ..)"; "" where it gave none."""
        found = self.headers.get("x-correlation-id", "")
        return f" (X-Correlation-ID {found[:MAX_TRACE_CHARS]})" if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoResponse:
    """No status line came back.

    Attributes:
        sent: False only with proof that no byte of the request was written; True means "perhaps".
        what: for the user and the log; never holds the key.
        is_permanent: waiting does not help: an unknown host, a certificate that is not valid, a proxy's refusal.
    """

    sent: bool
    what: str
    is_permanent: bool = False


@dataclass(slots=True)
class SendProof:
    """Whether the request may have left: still readable by the caller after the call was cancelled.

    MONEY: `sent` starts False and is set by the client library's hook that runs before the first byte is written.
    Only "the hook did not run" proves anything; no class of exception does.

    `may_send` is asked in that hook, immediately before the first byte: False keeps every byte here. A process that was
    frozen between its reservation and this moment must not send what others may have settled meanwhile.
    """

    sent: bool = False
    may_send: Callable[[], bool] = lambda: True
