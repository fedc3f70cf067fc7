"""`motions`: the presets that a manifest may name, and a fresh list from the gateway. Spends nothing."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

from pipeline.cli.arguments import ask_to_trust, print_json, print_notice, settings_of
from pipeline.config.loader import gateway_id
from pipeline.config.settings import Settings
from pipeline.gateway.motion_catalog import RefreshResult, load_catalog, refresh
from pipeline.gateway.motions import MotionCatalog, MotionPreset
from pipeline.reports.progress import strip_control_chars
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.embedded_sandbox import gateway_for
from pipeline.runner.engine import gateway_client

FRAMES = {True: "yes", False: "no", None: "?"}


def motions(args: argparse.Namespace) -> int:
    """Lists the catalogue in force, all of it or what `--search` finds; `--refresh` asks the gateway first."""
    settings = settings_of(args)
    if args.refresh:
        done = asyncio.run(_refreshed(settings))
        print_notice([f"{done.path}: {done}"])
    known = load_catalog(settings)
    found = known.search(args.search) if args.search else list(known.presets)
    if args.json:
        print_json(_as_json(settings, known, found))
        return 0
    _print(found)
    print_notice([f"{len(found)} of {len(known.presets)} presets; source: {known.source}"])
    near = known.suggest(args.search) if args.search and not found else None
    if near:
        print_notice([f"did you mean {near}?"])
    return 0


async def _refreshed(settings: Settings) -> RefreshResult:
    key = resolve_api_key(settings, ask=ask_to_trust)
    async with gateway_for(settings) as base_url, gateway_client(settings, base_url, key) as client:
        return await refresh(settings, client, now=time.time())


def _as_json(settings: Settings, known: MotionCatalog, found: Sequence[MotionPreset]) -> dict[str, object]:
    return {
        "gateway": gateway_id(settings),
        "source": known.source,
        "motions": [
            {
                "name": preset.name,
                "id": preset.motions_id,
                "start_end_frame": preset.start_end_frame,
                "preview_url": preset.preview_url,
            }
            for preset in found
        ],
    }


def _print(found: Sequence[MotionPreset]) -> None:
    if not found:
        return
    width = max(len(preset.name) for preset in found)
    print(f"{'name':<{width}}  {'id':<36}  end frame")
    for preset in found:
        line = f"{preset.name:<{width}}  {preset.motions_id}  {FRAMES[preset.start_end_frame]:<9}"
        print(strip_control_chars(f"{line}  {preset.preview_url or ''}".rstrip()))
