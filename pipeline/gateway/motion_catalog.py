"""The motion catalogue in force: the list that the gateway gave, kept beside the ledger, else the one that ships.

Asking the gateway is free; the key goes to the gateway alone, as with every call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.loader import gateway_id, packaged
from pipeline.config.settings import Settings
from pipeline.errors import FatalError, UsageError
from pipeline.files import whole_text
from pipeline.gateway.error_text import error_text
from pipeline.gateway.json_fields import read_json
from pipeline.gateway.motion_response import ParsedMotions, parse_motions
from pipeline.gateway.motions import MotionCatalog, as_csv, load
from pipeline.gateway.responses import NoResponse, Response

if TYPE_CHECKING:
    from pipeline.gateway.client import GatewayClient

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
OTHER_METHOD = frozenset({404, 405, 501})
"""Answers to GET after which POST is worth a try. Source: inferred (wire: GET or POST)."""


def kept_path(settings: Settings) -> Path:
    """Where the list of this gateway is kept: gateways may name other presets, so each has its own."""
    slug = _NOT_IN_NAMES.sub("-", gateway_id(settings).lower()).strip("-")
    return settings.ledger_path.parent / f"motions-{slug}.csv"


def load_catalog(settings: Settings) -> MotionCatalog:
    """The kept list of the gateway when there is one, else the shipped list. Never asks the network.

    Raises:
        FatalError: the kept list is damaged.
    """
    kept = kept_path(settings)
    return load(kept) if kept.is_file() else load(packaged("motions.csv"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshResult:
    """A list that was fetched and kept, against the one that was in force before."""

    catalogue: MotionCatalog
    path: Path
    new: int
    gone: int
    renamed: int
    left_out: int

    def __str__(self) -> str:
        summary = f"{len(self.catalogue.presets)} presets; {self.new} new, {self.gone} gone, {self.renamed} renamed"
        return summary + (f"; {self.left_out} entries without a UUID of their own left out" if self.left_out else "")


async def refresh(settings: Settings, client: GatewayClient, *, now: float) -> RefreshResult:
    """Asks the gateway for its list and keeps it for later runs.

    Raises:
        FatalError: it gives none; what was in force stays so.
        UsageError: the file can't be written.
    Writes: `kept_path(settings)`.
    """
    before = load_catalog(settings)
    found = await _asked(client, before, settings)
    at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh = MotionCatalog(found.presets, source=f"{gateway_id(settings)}, {at}")
    path = kept_path(settings)
    try:
        with whole_text(path) as file:
            file.write(as_csv(fresh))
    except OSError as error:
        raise UsageError(f"{path} can't be written ({error.strerror})") from None
    return _compared(before, fresh, path, found.left_out)


def _compared(before: MotionCatalog, fresh: MotionCatalog, path: Path, left_out: int) -> RefreshResult:
    old = {preset.motions_id: preset.name for preset in before.presets}
    new = {preset.motions_id: preset.name for preset in fresh.presets}
    return RefreshResult(
        catalogue=fresh,
        path=path,
        new=len(new.keys() - old.keys()),
        gone=len(old.keys() - new.keys()),
        renamed=sum(old[key] != new[key] for key in old.keys() & new.keys()),
        left_out=left_out,
    )


async def _asked(client: GatewayClient, known: MotionCatalog, settings: Settings) -> ParsedMotions:
    answer = await client.get_motions()
    # The address is inferred, and so is the method: these answers mean that it is the other one.
    if isinstance(answer, Response) and answer.status in OTHER_METHOD:
        answer = await client.get_motions(method="POST")
    if isinstance(answer, Response) and 200 <= answer.status < 300:
        found = parse_motions(read_json(answer.body), known)
        if found is not None:
            return found
    raise FatalError(
        f"{gateway_id(settings)} gives no list of motions at {settings.gateway.motions_path} "
        f"({describe_response(answer)}); the address is inferred: set gateway.motions_path. "
        "The list in force stays as it is"
    )


def describe_response(answer: Response | NoResponse) -> str:
    """An answer that was of no use, in a few words."""
    if isinstance(answer, NoResponse):
        return answer.what
    said = error_text(answer.body)
    return f"{answer.status}{': ' + said if said else ''}"
