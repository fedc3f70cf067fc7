"""What a manifest would buy: cells bound to a gateway and its prices, and split against the ledger. Sends nothing.

A request's identity is its content, so this is also where equal cells become one purchase. Reads local images to hash
them; never touches the network.
"""

from __future__ import annotations

import difflib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.assets import signed_urls
from pipeline.assets.addresses import SAMPLE_PREFIX, file_sha256, is_local, is_object
from pipeline.errors import FatalError, ManifestError, Problem
from pipeline.planning.request_keys import RequestKeys
from pipeline.records import (
    Cell,
    Params,
    Request,
)

_CHUNK = 1_000
"""Requests that are looked up in the ledger by one question."""


@dataclass(slots=True, kw_only=True)
class RequestBinder:
    """Turns cells into requests for one gateway.

    `takes_local` says whether the gateway can be handed local files, `takes_samples` whether it knows the sandbox's
    pictures, and `samples` which those are, where that is known. `object_sha256` gives the hash of a store's object
    as it was last checked, None if it never was; for a rehearsal there is no such teller, and an object is known by
    its address alone. After the stream is exhausted, `sha256_of`, `unseen` (objects that were not checked yet) and
    `expired` (request id -> what is wrong with its signature, which ended before `now`) say what was met.
    `inexpressible` says what the gateway cannot be asked for.
    """

    gateway: str
    prices_microusd: Mapping[str, int]
    manifest: Path
    takes_local: bool
    takes_samples: bool
    samples: frozenset[str] = frozenset()
    object_sha256: Callable[[str], str | None] | None = None
    inexpressible: Callable[[Params], str | None] = lambda params: None
    now: float = 0.0
    expired: dict[str, Problem] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)
    sha256_of: dict[str, str] = field(default_factory=dict)
    _keys: RequestKeys = field(init=False)
    _known_images: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    _problems: list[Problem] = field(default_factory=list)
    _unpriced: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._keys = RequestKeys(self.gateway)

    @property
    def images(self) -> Iterable[str]:
        """Every distinct image that was met, as the cells name it."""
        return self._known_images.keys()

    def bind(self, cells: Iterable[Cell]) -> Iterator[Request | Cell]:
        """Requests (and placeholders as they are) in the manifest's order. Act only at the end.

        Raises:
            ManifestError: an image that this gateway cannot be given.
            FatalError: a model without a price; an unknown price is never $0.
        """
        for cell in cells:
            if cell.params is None:
                yield cell
                continue
            request = self._request(cell, cell.params)
            # After the first mistake nothing is handed on; the rest is read only to find every mistake at once.
            if request is not None and not self._problems and not self._unpriced:
                yield request
        if self._problems:
            raise ManifestError(self._problems)
        if self._unpriced:
            rows = ", ".join(f"{model} ({count} requests)" for model, count in sorted(self._unpriced.items()))
            raise FatalError(
                f"no price is known for {rows}; add it under `prices` in the configuration. Nothing was sent"
            )

    def _note_expired(self, request_id: str, cell: Cell, params: Params) -> None:
        """Keeps what is wrong with a request whose address has a signature that has ended."""
        for image in (*params.input_images, *params.input_images_end):
            end = signed_urls.expires_at(image) if "?" in image else None
            if end is not None and end <= self.now:
                at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
                message = f"the signature of {signed_urls.unsigned(image)} expired at {at}: sign the address again"
                file = cell.file or self.manifest
                self.expired[request_id] = Problem(file=file, line=cell.line, where=cell.row_id, message=message)

    def key(self, params: Params, take: int) -> str:
        """The identity of a request whose images were met."""
        known = ((image, self._known_images.get(image)) for image in (*params.input_images, *params.input_images_end))
        images = {image: found[0] for image, found in known if found is not None and found[0] is not None}
        return self._keys.key(params, take=take, image_keys=images)

    def _request(self, cell: Cell, params: Params) -> Request | None:
        price = self.prices_microusd.get(params.model)
        # A price of 0 is none: an unknown price is never taken for a gift.
        if not price:
            self._unpriced[params.model] += 1
            return None
        if problem := self.inexpressible(params):
            self._problems.append(
                Problem(file=cell.file or self.manifest, line=cell.line, where=cell.row_id, message=problem)
            )
            return None
        local: dict[str, str] | None = None
        is_signed = False
        images = params.input_images + params.input_images_end if params.input_images_end else params.input_images
        for image in images:
            if image not in self._known_images:
                self._known_images[image] = self._resolve(image)
            key, refusal = self._known_images[image]
            is_signed = is_signed or "?" in image
            if refusal:
                self._problems.append(
                    Problem(file=cell.file or self.manifest, line=cell.line, where=cell.row_id, message=refusal)
                )
            elif key is not None:
                local = {**(local or {}), image: key}
        request_id = self._keys.key(params, take=cell.take, image_keys=local)
        if is_signed:
            self._note_expired(request_id, cell, params)
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
            row=cell.row,
            candidacy=cell.candidacy,
        )

    def _resolve(self, image: str) -> tuple[str | None, str]:
        """The key of an image in the identity where that is not its text, and why it can't be given, if so."""
        if image.startswith(SAMPLE_PREFIX):
            if self.takes_samples:
                return None, self._unknown_sample(image.removeprefix(SAMPLE_PREFIX))
            return None, f"{image} is a picture of the sandbox; {self.gateway} can't see it. Give a public URL"
        if is_object(image):
            return self._of_a_store(image), ""
        if not is_local(image):
            # The picture is known by its address without the signature, which is another one each time that it is
            # signed.
            bare = signed_urls.unsigned(image)
            return (None if bare == image else bare), ""
        if not self.takes_local:
            why = "needs a public URL (or configure `uploads`)"
            return None, f"{image} is a file of this machine; {self.gateway} {why}"
        self.sha256_of[image] = file_sha256(Path(image))
        return f"sha256:{self.sha256_of[image]}", ""

    def _unknown_sample(self, name: str) -> str:
        """What is wrong with the name of a picture of the sandbox; "" for one that it has."""
        stem = name.removesuffix(".jpg")
        if not self.samples or stem in self.samples:
            return ""
        near = difflib.get_close_matches(stem, self.samples, n=1)
        meant = f"Did you mean {SAMPLE_PREFIX}{near[0]}?" if near else f"It has {', '.join(sorted(self.samples))}"
        return f"{SAMPLE_PREFIX}{name}: the sandbox has no such picture. {meant}"

    def _of_a_store(self, address: str) -> str | None:
        if self.object_sha256 is None:
            return None
        sha256 = self.object_sha256(address)
        if sha256 is None:
            self.unseen.add(address)
            return None
        self.sha256_of[address] = sha256
        return f"sha256:{sha256}"
