"""A plan and a run as HTML for a notebook's cell: small tables, and the sheet's tiles with their pictures inside.

A notebook's server gives out no files of the outputs folder, so pictures are part of the HTML, small ones.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from html import escape
from pathlib import Path

from PIL import Image

from pipeline.reports.sheet.thumbnails import make_poster
from pipeline.reports.writer import PAGE

MAX_TILES = 24
"""Clips in one cell: their pictures take about 10 kB each, and are saved with the notebook."""

TILE_WIDTH_PX = 240
"""Width of a tile in a notebook, in pixels; tiles flow into rows as wide as the cell."""
_QUALITY = 78
"""JPEG quality of the tiles, in percent: they are embedded in the notebook, which should stay small."""

_TILE = "display:inline-block;vertical-align:top;width:{width}px;margin:0 10px 10px 0;font-size:12px;line-height:1.35"
_EMPTY = (
    "height:135px;background:rgba(128,128,128,.15);display:flex;align-items:center;justify-content:center;"
    "border-radius:3px"
)


def plan_html(title: str, counts: Mapping[str, int], by_model: Mapping[str, tuple[int, Decimal]]) -> str:
    """A plan: one line, the counts, and a table of models."""
    rows = "".join(
        f"<tr><td>{escape(model)}</td><td>{count}</td><td>${price:.3f}</td></tr>"
        for model, (count, price) in by_model.items()
    )
    summary = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    head = "<tr><th>model</th><th>videos</th><th>price</th></tr>"
    return f"<div><b>{escape(title)}</b><br>{escape(summary)}<table>{head}{rows}</table></div>"


def run_html(title: str, rows: Sequence[Mapping[str, object]], folder: Path) -> str:
    """A run: one line, and a tile for each of its first clips.

    Args:
        rows: of the report; the latest attempt of a request is shown. `folder`: the run's, which `local_path` is in.
    """
    latest = {(row["request_id"], row["row_id"]): row for row in rows}
    shown = list(latest.values())[:MAX_TILES]
    left = len(latest) - len(shown)
    more = f"<div>{left} more in {escape(str(folder / PAGE))}</div>" if left else ""
    return f"<div><b>{escape(title)}</b></div><div>{''.join(_tiles(shown, folder))}</div>{more}"


def _tiles(rows: Iterable[Mapping[str, object]], folder: Path) -> Iterable[str]:
    for row in rows:
        path = row.get("local_path")
        picture = _picture(folder / str(path)) if path else None
        status = escape(str(row.get("status")))
        image = (
            f'<img alt="" style="width:100%;border-radius:3px" src="{picture}">'
            if picture is not None
            else f'<div style="{_EMPTY}">{status}</div>'
        )
        details = " · ".join(escape(str(row[name])) for name in ("model", "motion") if row.get(name))
        trouble = "; ".join(_texts(row.get("reason")) or _texts(row.get("check_reasons")))
        yield (
            f'<div style="{_TILE.format(width=TILE_WIDTH_PX)}">{image}<br><b>{escape(str(row["row_id"]))}</b><br>'
            f"{details}{'<br>' + escape(trouble) if trouble else ''}</div>"
        )


def _texts(value: object) -> list[str]:
    if not value:
        return []
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def _picture(clip: Path) -> str | None:
    """A still of the clip as a data URI; None where there is none."""
    poster = make_poster(clip)
    if poster is None:
        return None
    try:
        with Image.open(poster) as picture:
            picture.thumbnail((TILE_WIDTH_PX, TILE_WIDTH_PX * 4))
            content = io.BytesIO()
            picture.convert("RGB").save(content, "JPEG", quality=_QUALITY, optimize=True)
    except (OSError, ValueError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
