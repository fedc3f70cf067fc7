"""From a manifest file to the stream of requests that a run lists: read, chosen, bound to the gateway."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pipeline.assets.addresses import OBJECT_PREFIXES, is_object
from pipeline.assets.object_checks import known_objects
from pipeline.config.gateway_address import is_loopback
from pipeline.config.loader import Settings, gateway_id
from pipeline.errors import ManifestError
from pipeline.gateway.kinds import kind_of
from pipeline.gateway.motion_catalog import load_catalog
from pipeline.ledger.budget import Caps, lowest
from pipeline.manifest import Manifest, read, source_files
from pipeline.manifest.reader import DEFAULT_MAX_ROWS, TooManyRowsError
from pipeline.planning.binding import RequestBinder
from pipeline.planning.manifest_pass import BindingSummary, KnownRequests, ManifestPass, Row
from pipeline.planning.selection import ALL, Selection
from pipeline.records import usd

T = TypeVar("T")
_BLOCK = 1 << 20
"""Bytes of stdin that are read at a time, so that the limit on its size stops it early."""
STDIN = Path("-")
"""The manifest's name for what comes through stdin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundManifest:
    """A manifest bound to a gateway and its prices. Its rows may be read again and again, in one pass each time."""

    manifest: Manifest
    settings: Settings
    frozen_seeds: Mapping[str, tuple[int, ...]] | None = None
    selection: Selection = ALL
    motions: str = ""
    samples: frozenset[str] = frozenset()
    """names of the embedded sandbox's pictures; empty where any name will do"""

    def read(
        self,
        consume: Callable[[Iterator[Row]], T],
        *,
        known: KnownRequests | None = None,
        must_be_checked: bool = False,
    ) -> tuple[T, BindingSummary]:
        """Hand all rows to `consume` in the manifest's order; return its result and what the pass met.

        Args:
            consume: reads the rows to their end. It must not act on a row before that: mistakes are raised there.
            known: the ledger to compare with; None where there is none.
            must_be_checked: refuse objects of a store that were not checked yet: a purchase needs their content.

        Raises:
            ManifestError: mistakes, all of them; signatures that have ended, of rows that are still to be bought.
            FatalError: a model without a price.
            UsageError: a choice that no row meets; an object that must have been checked, and was not.
        """
        binding = ManifestPass(
            self.manifest,
            _binder(self.manifest, self.settings, self.samples),
            self.selection,
            known=known,
            must_be_checked=must_be_checked,
        )
        return consume(binding.rows()), binding.summary()

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


def _binder(manifest: Manifest, settings: Settings, samples: frozenset[str]) -> RequestBinder:
    """A fresh binder for one pass over the manifest's cells."""
    gateway, kind = settings.gateway, kind_of(settings)
    embedded = gateway.is_embedded
    host = "" if embedded else _host(gateway.base_url)
    return RequestBinder(
        gateway=gateway_id(settings),
        prices_microusd=settings.prices_microusd,
        manifest=manifest.path,
        takes_local=embedded or settings.uploads.url is not None or kind.abilities.upload,
        takes_samples=embedded or is_loopback(host),
        samples=samples,
        object_sha256=known_objects(settings),
        inexpressible=kind.inexpressible,
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
            # An address may begin at the end of one block: this is longer than every prefix.
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
    samples: frozenset[str] = frozenset(),
) -> BoundManifest:
    """Reads a manifest's structure and gets it ready to be bound.

    Args:
        origin: the file that the manifest counts as, where it was written for this process only.
        samples: the names of the embedded sandbox's pictures, where a wrong one is to be found now.
        frozen_seeds: the random seeds of a saved plan. `draw` makes new ones, for a plan that is being made.
        max_rows: what its axes may multiply to where the manifest itself does not say.

    Raises:
        ManifestError: the structure is wrong.
    """
    presets = load_catalog(settings)
    # Kept in a file, because the rows are read several times, and what came through a pipe comes once.
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
        frozen_seeds=frozen_seeds,
        selection=selection,
        motions=presets.digest,
        samples=samples,
    )


def with_price(error: TooManyRowsError, settings: Settings) -> ManifestError:
    """The refusal of a large sweep with what it would have cost at most."""
    prices = settings.prices_microusd
    total = sum(prices.get(model, 0) * count for model, count in error.by_model.items())
    *others, last = error.problems
    message = f"{last.message} (it would cost up to ${usd(total)})"
    return ManifestError([*others, replace(last, message=message)])
