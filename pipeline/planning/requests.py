"""From a manifest file to the stream of requests that a run lists: read, chosen, bound to the gateway."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.assets.addresses import OBJECT_PREFIXES, is_object
from pipeline.assets.object_checks import known_objects
from pipeline.config.loader import Settings, gateway_id
from pipeline.config.settings import is_loopback
from pipeline.errors import ManifestError, Problem, UsageError
from pipeline.gateway.motion_catalog import load_catalog
from pipeline.ledger.budget import Caps, lowest
from pipeline.manifest import Manifest, read, source_files
from pipeline.manifest.reader import DEFAULT_MAX_ROWS, TooManyRowsError
from pipeline.planning.binding import RequestBinder
from pipeline.planning.folding import Folding
from pipeline.planning.lookalikes import Lookalikes
from pipeline.planning.selection import ALL, Selection, chosen
from pipeline.records import Cell, FoldedRow, Request, State, usd

_BLOCK = 1 << 20
STDIN = Path("-")
"""The manifest's name for what comes through stdin."""


@dataclass(slots=True, kw_only=True)
class BoundManifest:
    """A manifest bound to a gateway. `rows()` may be read again and again; act only once it is exhausted."""

    manifest: Manifest
    settings: Settings
    binder: RequestBinder
    frozen_seeds: Mapping[str, tuple[int, ...]] | None = None
    selection: Selection = ALL
    motions: str = ""
    must_be_seen: bool = False
    """whether every object of a store must have been checked: a purchase needs its content"""
    warnings: list[str] = field(default_factory=list)
    folding: Folding = field(default_factory=Folding)
    states: Callable[[list[str]], Mapping[str, State]] | None = None
    """request ids -> their states in the ledger; None where there is no ledger to compare with"""
    row_names: Callable[[list[str]], Mapping[str, str]] | None = None
    """request ids -> the rows that they were bought for"""

    def rows(self) -> Iterator[Request | Cell | FoldedRow]:
        """Requests, rows that ask for the video of an earlier request, and placeholders, in the manifest's order.

        Raises:
            ManifestError: mistakes, all of them; signatures that have ended, of rows that are still to be bought.
            FatalError: a model without a price.
            UsageError: a choice that no row meets; an object that must have been checked, and was not.
        """
        self.binder = binder(self.manifest, self.settings)
        self.folding = Folding()
        alike = Lookalikes()
        expired: dict[str, Problem] = {}
        picked = chosen(self.binder.bind(self.manifest.cells()), self.selection)
        yield from self.folding.folded(alike.watched(self._noting_expired(picked, expired)))
        self._refuse_expired(expired)
        self.warnings = list(self.manifest.warnings)
        self.warnings += alike.warnings(self.manifest.cells)
        if self.states is not None and self.row_names is not None:
            self.warnings += alike.bought_before(self.states, self.row_names, self.binder.image_keys)
        if self.folding.duplicates:
            self.warnings.append(
                f"{self.folding.duplicates} rows ask for a video that another row asks for already; each is bought "
                "once (to buy one again, give it `take: 2` or `repeat: 2`)"
            )
        if self.binder.unseen:
            some, count = min(self.binder.unseen), len(self.binder.unseen)
            message = f"{count} images of an object store were not checked yet ({some}{', ..' if count > 1 else ''})"
            if self.must_be_seen:
                raise UsageError(f"{message}: `dop plan --look` checks them; nothing was sent")
            self.warnings.append(f"{message}: their rows count as new; `dop plan --look` checks them, for free")

    def _noting_expired(self, rows: Iterable[Request | Cell], expired: dict[str, Problem]) -> Iterator[Request | Cell]:
        for row in rows:
            if isinstance(row, Request) and row.request_id in self.binder.expired:
                expired[row.request_id] = self.binder.expired[row.request_id]
            yield row

    def _refuse_expired(self, expired: Mapping[str, Problem]) -> None:
        """What was bought already needs no address: only rows that would be sent are refused."""
        known = self.states(list(expired)) if self.states is not None and expired else {}
        problems = [problem for key, problem in expired.items() if known.get(key, State.PLANNED) is State.PLANNED]
        if problems:
            raise ManifestError(problems)

    def objects(self) -> dict[str, list[str]]:
        """Every object of a store that the manifest names, with its rows. A manifest that names none is not read.

        Raises:
            ManifestError: mistakes, all of them.
        """
        found: dict[str, list[str]] = {}
        if not any(_mentions_objects(path) for path in self.manifest.files):
            return found
        for cell in self.manifest.cells():
            if cell.params is not None:
                images = dict.fromkeys((*cell.params.input_images, *cell.params.input_images_end))
                for image in filter(is_object, images):
                    found.setdefault(image, []).append(cell.row_id)
        return found

    def digest(self) -> str:
        """What the rows depend on, besides local images: the same digest gives the same rows."""
        parts = {
            "manifest": self.manifest.sha256,
            "gateway": gateway_id(self.settings),
            "defaults": {name: str(value) for name, value in self.settings.defaults.items()},
            "prices": dict(self.settings.prices_microusd),
            "models": list(self.settings.models),
            "seeds": {place: list(seeds) for place, seeds in (self.frozen_seeds or {}).items()},
            "selection": str(self.selection),
            "motions": self.motions,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def manifest_caps(self) -> Caps:
        """What the manifest itself allows."""
        asked = self.manifest.budget
        return Caps(
            run_microusd=asked.max_cost_microusd,
            day_microusd=asked.per_day_microusd,
            month_microusd=asked.per_month_microusd,
        )

    def caps(self, flag_microusd: int | None = None) -> Caps:
        """The lowest of manifest, configuration and flag, each span on its own."""
        return lowest((self.manifest_caps(), configured_caps(self.settings), Caps(run_microusd=flag_microusd)))


def configured_caps(settings: Settings) -> Caps:
    """What the configuration allows."""
    budget = settings.budget
    return Caps(
        run_microusd=budget.max_cost_microusd,
        day_microusd=budget.per_day_microusd,
        month_microusd=budget.per_month_microusd,
    )


def binder(manifest: Manifest, settings: Settings) -> RequestBinder:
    """A fresh binder for one pass over the manifest's cells."""
    gateway = settings.gateway
    embedded = gateway.is_embedded
    host = "" if embedded else _host(gateway.base_url)
    return RequestBinder(
        gateway=gateway_id(settings),
        prices_microusd=settings.prices_microusd,
        manifest=manifest.path,
        takes_local=embedded or settings.uploads.url is not None,
        takes_samples=embedded or is_loopback(host),
        object_sha256=known_objects(settings),
        now=time.time(),
    )


def _mentions_objects(path: Path) -> bool:
    """Whether a file may hold the beginning of an object's address; one that can't be read is reported elsewhere."""
    with suppress(OSError):
        if not source_files.is_plain_text(path):
            return True
    with suppress(OSError), path.open("rb") as file:
        before = b""
        while block := file.read(_BLOCK):
            if any(prefix.encode() in before + block for prefix in OBJECT_PREFIXES):
                return True
            before = block[-8:]
    return False


def _host(base_url: str) -> str:
    return urlsplit(base_url).hostname or ""


def bind_manifest(
    path: Path,
    settings: Settings,
    *,
    origin: Path | None = None,
    frozen_seeds: Mapping[str, tuple[int, ...]] | None = None,
    draw: Callable[[str, int], tuple[int, ...]] | None = None,
    selection: Selection = ALL,
    max_rows: int = DEFAULT_MAX_ROWS,
) -> BoundManifest:
    """Reads a manifest's structure and gets it ready to be bound.

    Args:
        origin: the file that the manifest counts as, where it was written for this process only.
        frozen_seeds: the random seeds of a saved plan. `draw` makes new ones, for a plan that is being made.
        max_rows: what its axes may multiply to where the manifest itself does not say.

    Raises:
        ManifestError: the structure is wrong.
    """
    presets = load_catalog(settings)
    if path == STDIN:
        path = source_files.kept_stdin(sys.stdin.buffer)
        origin = Path.cwd() / path.name
    manifest = read(
        path,
        origin=origin,
        defaults=settings.defaults,
        models=settings.models,
        catalogue=presets,
        max_rows=max_rows,
        frozen_seeds=frozen_seeds,
        draw=draw,
        picture_folders=settings.images.allow,
    )
    return BoundManifest(
        manifest=manifest,
        settings=settings,
        binder=binder(manifest, settings),
        frozen_seeds=frozen_seeds,
        selection=selection,
        motions=presets.digest,
    )


def with_price(error: TooManyRowsError, settings: Settings) -> ManifestError:
    """The refusal of a large sweep with what it would have cost at most."""
    prices = settings.prices_microusd
    total = sum(prices.get(model, 0) * count for model, count in error.by_model.items())
    *others, last = error.problems
    message = f"{last.message} (it would cost up to ${usd(total)})"
    return ManifestError([*others, replace(last, message=message)])
