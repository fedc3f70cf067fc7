"""A placeholder scene for an image URL that cannot be had: hills, water and a sky drawn from the URL's hash alone."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

WIDTH_PX, HEIGHT_PX = 1280, 720


def draw_scene(url: str) -> bytes:
    """PNG bytes; the same URL, the same bytes."""
    rng = np.random.default_rng(
        int.from_bytes(hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    )
    top, low = rng.integers(30, 230, (2, 3))
    share = np.linspace(0, 1, HEIGHT_PX)[:, None, None]
    sky = np.broadcast_to(top * (1 - share) + low * share, (HEIGHT_PX, WIDTH_PX, 3))
    picture = Image.fromarray(sky.astype(np.uint8))
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
