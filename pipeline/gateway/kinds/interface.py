"""What a kind of gateway is: pure functions from what is wanted to one HTTP call, and from a response to its meaning.

Everything above this package asks `abilities`, never a kind's name. Connections, pace, ledger and breaker are the same
for every kind. How to add one: docs/internals/gateways.md.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final

from pipeline.config.api_key import Credential
from pipeline.errors import InvariantError
from pipeline.gateway.classification import PollOutcome, SubmitOutcome
from pipeline.gateway.responses import NoResponse, Response
from pipeline.gateway.wire import SubmittedJob
from pipeline.records import Params

JSON_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    # Not compressed, so that the id can still be read in an answer that was cut.
    "Accept-Encoding": "identity",
    "User-Agent": "dop-batch",
}
"""The headers of every call of a kind that speaks JSON."""


class Recovery(StrEnum):
    """How the outcome of an unclear submit can be found out."""

    REPLAY = "replay"
    """the same bytes under the same idempotency key give the original job's id, and are charged once"""
    LOOKUP = "lookup"
    """the gateway finds a job, for free, by the id that we gave its submit"""
    NONE = "none"
    """not at all: it stays unknown unless an id in the response or a callback proves it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a kind of gateway can do beyond submit and poll.

    Attributes:
        refunds_known: the gateway publishes that failed, refused and canceled jobs are not charged.
        motions: it lists its motion presets.
        key_probe: a free call can show that it honours an idempotency key.
    """

    recovery: Recovery = Recovery.NONE
    cancel: bool = False
    upload: bool = False
    estimate: bool = False
    usage: bool = False
    models: bool = False
    refunds_known: bool = False
    motions: bool = False
    key_probe: bool = False


class ReplayKind(StrEnum):
    """What a repeated paid call says about the submit that it repeats."""

    JOB = "job"
    """a 2xx with an id: the one and only proof"""
    IN_FLIGHT = "in_flight"
    """the first call is still being worked on: ask again in a moment"""
    MISMATCH = "mismatch"
    """the key belongs to other bytes: never sent again, under this key or another"""
    UNCLEAR = "unclear"
    """this call failed, and says nothing about the first one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOutcome:
    """What the end of a repeated paid call means. `job` comes with kind JOB only; `wait_s` is the gateway's hint."""

    kind: ReplayKind
    job: SubmittedJob | None = None
    reason: str = ""
    wait_s: float | None = None


class KeyShown(StrEnum):
    """What a free call under an idempotency key shows."""

    HONOURED = "honoured"
    """the gateway knows the key, and refused the call because of it"""
    NOT_SHOWN = "not shown"
    """the call was refused as any invalid one is: the key is not honoured, or is checked later"""
    UNCLEAR = "unclear"
    """no answer that tells"""


class CancelOutcome(StrEnum):
    """What the end of a cancel call means."""

    CANCELED = "canceled"
    """canceled, and not charged"""
    TOO_LATE = "too_late"
    """it had started: it continues and is charged"""
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadTicket:
    """Where a picture is uploaded to, with which headers, and the address under which the gateway reads it then."""

    public_url: str
    upload_url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """What the gateway says was used of one model on one day (UTC, `YYYY-MM-DD`)."""

    day: str
    model: str
    quantity: int
    cost_microusd: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP call. It never holds the key; the client adds that.

    Attributes:
        target: a path below the gateway's base URL, query included, or a whole address of the gateway's own origin.
        headers: besides those of every call (`GatewayKind.headers`).
    """

    method: str
    target: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def sealed(self) -> str:
        """The call as one line of ASCII, from which `unsealed` makes the very same bytes."""
        body = None if self.body is None else self.body.decode("ascii")
        return json.dumps({"method": self.method, "target": self.target, "headers": dict(self.headers), "body": body})

    @classmethod
    def unsealed(cls, text: str) -> Call | None:
        """The inverse of `sealed`; None for any other text."""
        try:
            found = json.loads(text)
            body = found["body"]
            return cls(
                method=str(found["method"]),
                target=str(found["target"]),
                headers={str(name): str(value) for name, value in found["headers"].items()},
                body=None if body is None else str(body).encode("ascii"),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """Where the gateway is asked to call back about one attempt; `secret` proves it, where the kind sends one."""

    url: str
    secret: str


class GatewayKind(ABC):
    """One kind of gateway. Pure: no I/O, no clock.

    Attributes:
        headers: of every call, without the key.
        credential: where the key comes from, and to which origins it may go without asking.
        poll_styles: the ways to ask for a job, the usual one first; after a 404 the next one is tried.
        poll_probes: (name for the user, style) of each address that `dop doctor --live` tries with a made-up job.
        submit_paths: the paths that may take a submit, the configured one first; empty where the model is the path.
    """

    name: ClassVar[str]
    abilities: ClassVar[Abilities]
    headers: ClassVar[Mapping[str, str]]
    credential: ClassVar[Credential]
    poll_styles: ClassVar[tuple[str, ...]]
    poll_probes: ClassVar[tuple[tuple[str, str], ...]]
    submit_paths: tuple[str, ...] = ()

    # --- the key

    @abstractmethod
    def auth_headers(self, key: str) -> Mapping[str, str]:
        """The headers by which a call to the gateway's own origin proves who asks."""

    def secrets_of(self, key: str) -> tuple[str, ...]:
        """The texts that no log may hold: the key, or its parts."""
        return (key,)

    # --- calls

    @abstractmethod
    def submit_call(
        self,
        params: Params,
        *,
        idempotency_key: str,
        images: Mapping[str, str],
        callback: Callback | None = None,
        path: str = "",
    ) -> Call:
        """The paid call.

        Args:
            idempotency_key: one per intended purchase.
            images: image as the manifest wrote it -> address to send instead.
            path: one of `submit_paths`.
        """

    @abstractmethod
    def poll_call(self, job_set_id: str, own_url: str | None, style: str) -> Call:
        """The free call that asks for one job.

        Args:
            own_url: the address that the submit's response gave, if it is the gateway's own.
            style: one of `poll_styles`.
        """

    def motions_call(self, method: str) -> Call:
        """The free call that lists the motion presets."""
        raise self._unable("motions")

    def cancel_call(self, job_set_id: str) -> Call:
        """The free call that cancels a job."""
        raise self._unable("cancel")

    def upload_call(self, content_type: str) -> Call:
        """The free call that asks for an address to upload a picture to."""
        raise self._unable("upload")

    def estimate_call(self, params: Params, images: Mapping[str, str]) -> Call:
        """The free call that prices one submit."""
        raise self._unable("estimate")

    def usage_call(self, start: str, end: str) -> Call:
        """The free call for what the account used between two moments (ISO 8601, UTC)."""
        raise self._unable("usage")

    def models_call(self) -> Call:
        """The free call that lists what the account may buy."""
        raise self._unable("models")

    def lookup_call(self, own_id: str) -> Call:
        """The free call that finds a job by the `idempotency_key` of its submit."""
        raise self._unable("lookup")

    def key_probe_call(self, call: Call, key: str | None = None) -> Call:
        """A call that can buy nothing, whatever the gateway does with keys, under the key of `call` or another one."""
        raise self._unable("key_probe")

    # --- what a response means

    @abstractmethod
    def classify_submit(
        self, outcome: Response | NoResponse, *, now_unix: float, params: Params | None = None
    ) -> SubmitOutcome:
        """What the end of a first submit means. Pays: decides what may be sent again."""

    @abstractmethod
    def classify_poll(
        self, outcome: Response | NoResponse, *, now_unix: float, job_set_id: str | None = None
    ) -> PollOutcome:
        """What the end of one poll means."""

    def classify_replay(
        self, outcome: Response | NoResponse, *, now_unix: float, params: Params | None = None
    ) -> ReplayOutcome:
        """What the end of a repeated submit means. Pays: decides whether it is repeated once more."""
        raise self._unable("replay")

    def classify_key_probe(self, outcome: Response | NoResponse, control: Response) -> KeyShown:
        """What a `key_probe_call` shows; `control` is the answer to the same call under a key that was never used."""
        raise self._unable("key_probe")

    def classify_lookup(self, outcome: Response | NoResponse, *, now_unix: float) -> ReplayOutcome:
        """What the end of a lookup means: JOB, or UNCLEAR. That nothing is found proves nothing: it may lag."""
        raise self._unable("lookup")

    def classify_cancel(self, outcome: Response | NoResponse) -> CancelOutcome:
        """What the end of a cancel call means."""
        raise self._unable("cancel")

    def read_upload(self, outcome: Response | NoResponse) -> UploadTicket | None:
        """Where to upload to; None where the gateway does not say."""
        raise self._unable("upload")

    def read_estimate(self, outcome: Response | NoResponse) -> int | None:
        """The gateway's own price of one submit in micro-dollars; None where it names none."""
        raise self._unable("estimate")

    def read_models(self, outcome: Response | NoResponse) -> frozenset[str] | None:
        """The gateway's ids of the models that are sold; None where it lists none."""
        raise self._unable("models")

    def read_usage(self, outcome: Response | NoResponse) -> tuple[UsageLine, ...] | None:
        """What was used, by day and model; None where the gateway gives no list."""
        raise self._unable("usage")

    # --- requests

    def vendor_model(self, model: str) -> str:
        """The gateway's own name of a manifest's model."""
        return model

    def inexpressible(self, params: Params) -> str | None:
        """What this kind cannot be asked for, as a sentence for the user; None when it can express everything."""
        return None

    def _unable(self, ability: str) -> InvariantError:
        return InvariantError(f"a gateway of kind {self.name} has no {ability}; ask `abilities` first")
