"""The records that every package uses: requests, states, money. No I/O, no clock, no import but errors.

Money is an integer number of micro-dollars (`*_microusd`) everywhere; three decimals are for display only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from pipeline.record_class import record

MICROUSD = 1_000_000
"""Micro-dollars in a dollar: the ledger counts whole numbers, so that no sum is ever rounded."""

SEED_MIN, SEED_MAX = 1, 1_000_000
"""Range of a seed, both ends included. Source: API document, parameter table."""

STRENGTH_STEPS = 100
"""Steps of motions_strength, which runs 0..1 in steps of 0.01. Source: API document, parameter table."""

LOOP = "loop"
"""The tag that `loop: true` gives a row: its last frame is to lead on to the first."""

UUID_PATTERN = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UUID_SPELLING = re.compile(r"(?i)(?:urn:uuid:|[{(]?)([0-9a-f]{8})" + 3 * "-?([0-9a-f]{4})" + "-?([0-9a-f]{12})[})]?")
"""A UUID as programs write it: in capitals, in braces, without hyphens, as a URN."""


def canonical_job_id(job_id: str) -> str:
    """One spelling for all spellings of a job id: a UUID in small letters with hyphens, any other id unchanged.

    For comparisons only. The gateway is polled with the id as it wrote it, since it may compare letter by letter.
    """
    found = _UUID_SPELLING.fullmatch(job_id)
    return "-".join(found.groups()).lower() if found else job_id


def job_id_spellings(job_id: str) -> tuple[str, ...]:
    """The spellings under which the ledger may hold a job id: as given, and the usual ones of a UUID."""
    if not _UUID_SPELLING.fullmatch(job_id):
        return (job_id,)
    usual = canonical_job_id(job_id)
    lower = (usual, usual.replace("-", ""), f"{{{usual}}}", f"({usual})", f"urn:uuid:{usual}")
    return tuple(dict.fromkeys((job_id, *lower, *map(str.upper, lower[:-1]))))


def usd(microusd: int) -> str:
    """Money for display: dollars with three decimals, half a tenth of a cent rounded away from zero."""
    sign = "-" if microusd < 0 else ""
    mills = (abs(microusd) + 500) // 1000
    return f"{sign}{mills // 1000}.{mills % 1000:03d}"


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def microusd(dollars: str | int | Decimal) -> int:
    """Micro-dollars of a decimal amount in dollars.

    Raises:
        ValueError: not a number, negative, or finer than a micro-dollar.
    """
    try:
        amount = Decimal(dollars) * MICROUSD
    except ArithmeticError as error:
        raise ValueError(f"{dollars!r} is not an amount in dollars") from error
    if not amount.is_finite() or amount < 0 or amount != amount.to_integral_value():
        raise ValueError(f"{dollars!r} is not an amount in dollars")
    return int(amount)


class State(StrEnum):
    """The state of one attempt to buy one request: the closed list of the ledger, the report and `--json`."""

    PLANNED = "planned"
    """not sent"""
    SUBMITTING = "submitting"
    """the intent is durable; the POST may be in flight"""
    ACCEPTED = "accepted"
    """the gateway gave an id"""
    STALLED = "stalled"
    """past its deadline, still collectable"""
    DONE = "done"
    EXPIRED = "expired"
    """paid, but the video is gone"""
    FAILED = "failed"
    REFUSED = "refused"
    """nsfw or moderation"""
    CANCELED = "canceled"
    REJECTED = "rejected"
    """a 4xx answer: never created"""
    UNKNOWN = "unknown"
    """perhaps paid: the operator resolves it"""
    WRITTEN_OFF = "written_off"
    """settled by `dop resolve --charged`"""
    SKIPPED = "skipped"
    """a placeholder of the sheet; never in the ledger"""


class CostState(StrEnum):
    """Which of the report's three sums an attempt's price belongs to."""

    CONFIRMED = "confirmed"
    DISPUTED = "disputed"
    RESERVED = "reserved"
    NONE = "none"


COST_STATE: Mapping[State, CostState] = MappingProxyType(
    {
        State.PLANNED: CostState.NONE,
        State.SUBMITTING: CostState.RESERVED,
        State.ACCEPTED: CostState.RESERVED,
        State.STALLED: CostState.RESERVED,
        State.DONE: CostState.CONFIRMED,
        State.EXPIRED: CostState.CONFIRMED,
        State.FAILED: CostState.DISPUTED,
        State.REFUSED: CostState.DISPUTED,
        State.CANCELED: CostState.DISPUTED,
        State.REJECTED: CostState.NONE,
        State.UNKNOWN: CostState.RESERVED,
        State.WRITTEN_OFF: CostState.DISPUTED,
        State.SKIPPED: CostState.NONE,
    }
)

IN_FLIGHT = frozenset({State.SUBMITTING, State.ACCEPTED, State.STALLED})
FAILED_FOR_GOOD = frozenset(
    {State.FAILED, State.REFUSED, State.EXPIRED, State.CANCELED, State.REJECTED, State.WRITTEN_OFF}
)
RETRYABLE = frozenset({State.FAILED, State.REFUSED, State.EXPIRED, State.CANCELED, State.REJECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What the gateway is paid to do: the paid fields of one submit, validated against the API document's table.

    Images are as the manifest wrote them: an http(s) URL, a path relative to nothing (absolute), or `sandbox:NAME`.
    `strength_hundredths` is motions_strength times 100, so that equal requests compare equal.
    Source: API document, "Parameters for /generateImageToVideoRequest".
    """

    model: str
    prompt: str
    seed: int
    motions_id: str
    strength_hundredths: int
    input_images: tuple[str, ...]
    input_images_end: tuple[str, ...] = ()
    enhance_prompt: bool
    check_nsfw: bool | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model is empty")
        if not self.prompt.strip():
            raise ValueError("prompt is empty")
        if not SEED_MIN <= self.seed <= SEED_MAX:
            raise ValueError(f"seed {self.seed} is outside {SEED_MIN}..{SEED_MAX}")
        if not 0 <= self.strength_hundredths <= STRENGTH_STEPS:
            raise ValueError(f"strength {self.strength_hundredths / STRENGTH_STEPS} is outside 0..1")
        if len(self.input_images) != 1:
            raise ValueError(f"exactly 1 image is needed, not {len(self.input_images)}")
        if not UUID_PATTERN.fullmatch(self.motions_id):
            raise ValueError(f"motions_id {self.motions_id!r} is not a UUID")

    def varied(self, *, prompt: str, seed: int) -> Params:
        """The same purchase with another prompt and another seed: `dataclasses.replace`, in a third of its time.

        Only these two are checked, since the others were when this object was made.

        Raises:
            ValueError: as for a new object.
        """
        if not prompt.strip():
            raise ValueError("prompt is empty")
        if not SEED_MIN <= seed <= SEED_MAX:
            raise ValueError(f"seed {seed} is outside {SEED_MIN}..{SEED_MAX}")
        made = object.__new__(Params)
        _MODEL(made, self.model)
        _PROMPT(made, prompt)
        _SEED(made, seed)
        _MOTIONS_ID(made, self.motions_id)
        _STRENGTH(made, self.strength_hundredths)
        _IMAGES(made, self.input_images)
        _IMAGES_END(made, self.input_images_end)
        _ENHANCE(made, self.enhance_prompt)
        _CHECK_NSFW(made, self.check_nsfw)
        return made


# The setters of the slots of Params, in their order: `varied` runs a million times for a large sheet, and these take
# half as long as the `object.__setattr__` of a frozen dataclass.
_MODEL, _PROMPT, _SEED, _MOTIONS_ID, _STRENGTH, _IMAGES, _IMAGES_END, _ENHANCE, _CHECK_NSFW = (
    vars(Params)[one.name].__set__ for one in fields(Params)
)


class KeepIf(StrEnum):
    """What makes a clip a keeper: `keep_if` of the manifest."""

    CHECK = "check"
    """it passed the checks"""
    PICK = "pick"
    """the user kept it in the review"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidacy:
    """Marks a cell as a candidate of a shot, of which `keep` clips are wanted (`keep: K` in the manifest).

    Attributes:
        shot: name of the shot: the row's id with the labels of all its axes but seed and take.
        ahead: candidates to buy beyond those that are needed (`keep_ahead`).
    """

    shot: str
    keep: int
    keep_if: KeepIf = KeepIf.CHECK
    ahead: int = 0


@record
class Cell:
    """One video that a manifest asks for, before a gateway, a price and the ledger are known.

    `row_id` is the cell id, unique in its manifest (`lamp@calm-11`). `axes` maps axis name to the value's label, in the
    manifest's order, for the contact sheet. `params` is None only for a placeholder (`skip: true`).
    `file` and `line` are where its row is, as far as that is known; `row` is the id of that row, which its axes
    multiplied. `candidacy` is None for a cell that is simply to be bought.
    """

    row_id: str
    params: Params | None
    motion: str = ""
    take: int = 1
    tags: tuple[str, ...] = ()
    axes: tuple[tuple[str, str], ...] = ()
    line: int | None = None
    file: Path | None = field(default=None, compare=False)
    row: str = ""
    candidacy: Candidacy | None = None


@record
class Request:
    """A cell bound to a gateway: what may be bought, under the identity by which it is bought once.

    `request_id` is `request_key(...)`. `price_microusd` is the price of one attempt on the day it was planned.
    """

    request_id: str
    gateway: str
    row_id: str
    params: Params
    motion: str
    take: int
    price_microusd: int
    tags: tuple[str, ...] = ()
    axes: tuple[tuple[str, str], ...] = ()
    row: str = ""
    candidacy: Candidacy | None = None


@record
class FoldedRow:
    """A row that asks for a video which an earlier row of the same stream asks for: it is listed, not bought."""

    request_id: str
    row_id: str
    tags: tuple[str, ...] = ()
    axes: tuple[tuple[str, str], ...] = ()
    candidacy: Candidacy | None = None


REQUEST_KEY_HEX = 32
"""Hexadecimal digits of a request id (128 bits): no two of a trillion requests share one."""


def request_key(params: Params, *, take: int, gateway: str, image_keys: Mapping[str, str] | None = None) -> str:
    """Identity of a purchase: 32 hex digits over the paid fields, the take and the gateway; never the row's place.

    Args:
        image_keys: the key of an image in the identity where that is not its text (the sha256 of a local file).
    """
    return framed_key(key_frame(params, take, gateway, image_keys or {}), params)


def framed_key(frame: tuple[str, str], params: Params) -> str:
    """`request_key` from a `key_frame` of the same request."""
    prompt, seed = params.prompt, str(params.seed)
    text = f"{frame[0]}{len(prompt)}:{prompt}{len(seed)}:{seed}{frame[1]}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:REQUEST_KEY_HEX]


def key_frame(params: Params, take: int, gateway: str, image_keys: Mapping[str, str]) -> tuple[str, str]:
    """The text that is hashed, as far as it comes before prompt and seed, and behind them."""
    start = [image_keys.get(image, image) for image in params.input_images]
    end = [image_keys.get(image, image) for image in params.input_images_end]
    parts = [params.motions_id.lower(), str(params.strength_hundredths), str(len(start)), *start, str(len(end)), *end]
    parts += [str(params.enhance_prompt), str(params.check_nsfw), str(take), gateway]
    # Every part with its length in front: no two different requests have the same text. Faster than JSON by far.
    return f"{len(params.model)}:{params.model}", "".join([f"{len(part)}:{part}" for part in parts])


@record
class Attempt:
    """One attempt to buy one request, as the ledger knows it: a line of the report.

    Times are Unix seconds (UTC). `local_path` is relative to the outputs folder. `token` is the compare-and-swap token
    of the submit in flight. `bought_in` names the run that bought it when that is not the run being reported.
    """

    request_id: str
    attempt: int
    gateway: str
    run_id: str
    row_id: str
    tags: tuple[str, ...]
    axes: tuple[tuple[str, str], ...]
    params: Params
    motion: str
    take: int
    price_microusd: int
    state: State
    token: str | None = None
    idempotency_key: str | None = None
    job_set_id: str | None = None
    polling_url: str | None = None
    video_url: str | None = None
    preview_url: str | None = None
    local_path: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    submit_attempts: int = 0
    throttled: int = 0
    polls: int = 0
    resends: int = 0
    submitted_at: float | None = None
    accepted_at: float | None = None
    finished_at: float | None = None
    reason: str | None = None
    bought_in: str | None = None
    is_spare: bool = False

    @property
    def cost_state(self) -> CostState:
        """The sum this attempt's price belongs to; none when another run bought it."""
        return CostState.NONE if self.bought_in is not None else COST_STATE[self.state]

    @property
    def lacks_file(self) -> bool:
        """Whether its video, if there is one, was never saved or was found to be gone."""
        return self.local_path is None or self.sha256 is None

    @property
    def cost_microusd(self) -> int:
        """What this attempt adds to the reported run's sums."""
        return 0 if self.cost_state is CostState.NONE else self.price_microusd


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts by state and the three sums of a run or of a ledger, as one moment saw them.

    `spare` counts planned candidates that no shot needs now; `counts` leaves them out.
    """

    counts: Mapping[State, int] = field(default_factory=dict)
    spare: int = 0
    confirmed_microusd: int = 0
    disputed_microusd: int = 0
    reserved_microusd: int = 0

    def count(self, *states: State) -> int:
        """How many attempts are in any of `states`."""
        return sum(self.counts.get(state, 0) for state in states)

    @property
    def requests(self) -> int:
        """All attempts, with the candidates that no shot needs now."""
        return sum(self.counts.values()) + self.spare

    @property
    def worst_microusd(self) -> int:
        """What the run costs if every open question goes against us."""
        return self.confirmed_microusd + self.disputed_microusd + self.reserved_microusd
