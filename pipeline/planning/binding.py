"""What a manifest would buy: cells bound to a gateway and its prices, and split against the ledger. Sends nothing.

A request's identity is its content, so this is also where equal cells become one purchase. Reads local images to hash
them; never touches the network.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pipeline.errors import FatalError, ManifestError, Problem
from pipeline.records import (
    FAILED_FOR_GOOD,
    IN_FLIGHT,
    Cell,
    Params,
    Request,
    State,
    request_key,
    usd,
)

SAMPLE_PREFIX = "sandbox:"
OBJECT_PREFIXES = ("s3://", "gs://", "az://")
_CHUNK = 1_000
_BLOCK = 1 << 20


def is_local(image: str) -> bool:
    """Whether an image of a cell is a file of this machine (the manifest room hands those over as absolute paths)."""
    return not image.startswith(("http://", "https://", SAMPLE_PREFIX, *OBJECT_PREFIXES))


def is_object(image: str) -> bool:
    """Whether an image of a cell is an object of a store: `s3://bucket/key` and the like."""
    return image.startswith(OBJECT_PREFIXES)


def object_place(address: str) -> tuple[str, str]:
    """`s3://bucket/some/key` -> (`s3://bucket`, `some/key`)."""
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's content, read in blocks."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()


@dataclass(slots=True, kw_only=True)
class RequestBinder:
    """Turns cells into requests for one gateway.

    `takes_local` says whether the gateway can be handed local files, `takes_samples` whether it knows the sandbox's
    pictures. `object_sha256` tells the hash of a store's object as it was last looked at, None where nobody did; for a
    rehearsal there is no such teller, and an object is known by its address alone. After the stream is exhausted,
    `duplicates`, `sha256_of` and `unseen` (objects that nobody looked at yet) say what was met.
    """

    gateway: str
    prices_microusd: Mapping[str, int]
    manifest: Path
    takes_local: bool
    takes_samples: bool
    object_sha256: Callable[[str], str | None] | None = None
    duplicates: int = 0
    unseen: set[str] = field(default_factory=set)
    sha256_of: dict[str, str] = field(default_factory=dict)
    _seen: set[bytes] = field(default_factory=set)
    _known_images: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    _problems: list[Problem] = field(default_factory=list)
    _unpriced: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> Iterable[str]:
        """Every distinct image that was met, as the cells name it."""
        return self._known_images.keys()

    def bind(self, cells: Iterable[Cell]) -> Iterator[Request | Cell]:
        """Requests (and placeholders as they are) in the manifest's order; equal ones once. Act only at the end.

        Raises:
            ManifestError: an image that this gateway cannot be given.
            FatalError: a model without a price; an unknown price is never $0.
        """
        for cell in cells:
            if cell.params is None:
                yield cell
                continue
            request = self._request(cell, cell.params)
            if request is not None and not self._problems and not self._unpriced:
                yield request
        if self._problems:
            raise ManifestError(self._problems)
        if self._unpriced:
            rows = ", ".join(f"{model} ({count} requests)" for model, count in sorted(self._unpriced.items()))
            raise FatalError(
                f"no price is known for {rows}; add it under `prices` in the configuration. Nothing was sent"
            )

    def _request(self, cell: Cell, params: Params) -> Request | None:
        price = self.prices_microusd.get(params.model)
        if not price:
            self._unpriced[params.model] += 1
            return None
        local: dict[str, str] | None = None
        for image in (*params.input_images, *params.input_images_end):
            if image not in self._known_images:
                self._known_images[image] = self._looked_at(image)
            key, refusal = self._known_images[image]
            if refusal:
                self._problems.append(Problem(file=self.manifest, line=cell.line, where=cell.row_id, message=refusal))
            elif key is not None:
                local = {**(local or {}), image: key}
        request_id = request_key(params, take=cell.take, gateway=self.gateway, image_keys=local)
        mark = bytes.fromhex(request_id)
        if mark in self._seen:
            self.duplicates += 1
            return None
        self._seen.add(mark)
        return Request(
            request_id=request_id,
            gateway=self.gateway,
            row_id=cell.row_id,
            params=params,
            motion=cell.motion,
            take=cell.take,
            price_microusd=price,
            tags=cell.tags,
            axes=cell.axes,
        )

    def _looked_at(self, image: str) -> tuple[str | None, str]:
        """What stands for an image in the identity where that is not its text, and why it can't be given, if so."""
        if image.startswith(SAMPLE_PREFIX):
            if self.takes_samples:
                return None, ""
            return None, f"{image} is a picture of the sandbox; {self.gateway} can't see it. Give a public URL"
        if is_object(image):
            return self._of_a_store(image), ""
        if not is_local(image):
            return None, ""
        if not self.takes_local:
            why = "needs a public URL (or configure `uploads`)"
            return None, f"{image} is a file of this machine; {self.gateway} {why}"
        self.sha256_of[image] = file_sha256(Path(image))
        return f"sha256:{self.sha256_of[image]}", ""

    def _of_a_store(self, address: str) -> str | None:
        if self.object_sha256 is None:
            return None
        sha256 = self.object_sha256(address)
        if sha256 is None:
            self.unseen.add(address)
            return None
        self.sha256_of[address] = sha256
        return f"sha256:{sha256}"


@dataclass(slots=True, kw_only=True)
class ModelShare:
    """How many requests of one model, at what price in all."""

    requests: int = 0
    price_microusd: int = 0


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a manifest asks for, split by what the ledger knows. `state_digest` changes when any of it does."""

    requests: int = 0
    price_microusd: int = 0
    new: int = 0
    new_price_microusd: int = 0
    done: int = 0
    in_flight: int = 0
    unknown: int = 0
    failed: int = 0
    skipped: int = 0
    duplicates: int = 0
    by_model: dict[str, ModelShare] = field(default_factory=dict)
    state_digest: str = ""

    def as_json(self) -> dict[str, object]:
        """The object of `dop plan --json`: money as strings with three decimals."""
        return {
            "requests": self.requests,
            "price_usd": usd(self.price_microusd),
            "new": self.new,
            "new_price_usd": usd(self.new_price_microusd),
            "done": self.done,
            "in_flight": self.in_flight,
            "unknown": self.unknown,
            "failed": self.failed,
            "skipped": self.skipped,
            "duplicates": self.duplicates,
            "by_model": {
                model: {"requests": share.requests, "price_usd": usd(share.price_microusd)}
                for model, share in sorted(self.by_model.items())
            },
        }


def split(rows: Iterable[Request | Cell], states_of: Callable[[list[str]], Mapping[str, State]]) -> Plan:
    """Counts and prices of `rows` against the ledger, in one pass.

    Args:
        states_of: request ids -> the state of those that the ledger knows.
    """
    plan = Plan()
    sha = hashlib.sha256()
    counts: Counter[tuple[State, str]] = Counter()
    prices: Counter[tuple[State, str]] = Counter()
    stream = iter(rows)
    while chunk := list(islice(stream, _CHUNK)):
        requests = [row for row in chunk if isinstance(row, Request)]
        plan.skipped += len(chunk) - len(requests)
        known = states_of([request.request_id for request in requests])
        lines = []
        for request in requests:
            state = known.get(request.request_id, State.PLANNED)
            kind = (state, request.params.model)
            counts[kind] += 1
            prices[kind] += request.price_microusd
            lines.append(f"{request.request_id} {state.value} {request.price_microusd}\n")
        sha.update("".join(lines).encode())
    for (state, model), count in counts.items():
        _add(plan, state, model, count, prices[state, model])
    plan.state_digest = sha.hexdigest()
    return plan


def _add(plan: Plan, state: State, model: str, count: int, price_microusd: int) -> None:
    plan.requests += count
    plan.price_microusd += price_microusd
    share = plan.by_model.setdefault(model, ModelShare())
    share.requests += count
    share.price_microusd += price_microusd
    if state is State.PLANNED:
        plan.new += count
        plan.new_price_microusd += price_microusd
    elif state is State.DONE:
        plan.done += count
    elif state in IN_FLIGHT:
        plan.in_flight += count
    elif state is State.UNKNOWN:
        plan.unknown += count
    elif state in FAILED_FOR_GOOD:
        plan.failed += count
