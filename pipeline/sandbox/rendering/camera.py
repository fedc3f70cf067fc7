"""From a pose to pixels: which part of the still image a frame shows, and the frame itself. Pure but for its speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.sandbox.rendering.motion import CameraPose

FOCAL = 1.2
"""Focal length in longer sides of the frame: how strongly yaw and pitch converge."""

FINEST = 2.0
"""The source is at most this much finer than the frame: beyond, bilinear sampling would flicker."""

_MARGIN = 0.004
_MAX_ZOOM = 6.0

Size = tuple[int, int]
Matrix = NDArray[np.float64]


def framed(poses: Sequence[CameraPose], size: Size) -> list[CameraPose]:
    """The same move, zoomed in by one factor for the whole clip, so that no frame ever looks past the image's edge."""
    probe = [*poses[::3], poses[-1]]
    low, high = 1.0, _MAX_ZOOM
    if _inside(probe, size, low):
        high = low
    while high - low > 0.003:
        middle = (low + high) / 2
        low, high = (low, middle) if _inside(probe, size, middle) else (middle, high)
    return [replace(pose, zoom=pose.zoom * high) for pose in poses]


def _inside(poses: Sequence[CameraPose], size: Size, zoom: float) -> bool:
    width, height = size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], dtype=float)
    for pose in poses:
        seen = homography(replace(pose, zoom=pose.zoom * zoom), size, (1, 1)) @ corners
        if (seen[2] <= 0).any():
            return False
        place = seen[:2] / seen[2]
        if place.min() < _MARGIN or place.max() > 1 - _MARGIN:
            return False
    return True


def homography(pose: CameraPose, size: Size, source_px: Size) -> Matrix:
    """3x3 matrix from frame pixels to source pixels, its last entry 1. The image turns about the target."""
    width, height = size
    focal = FOCAL * max(width, height)
    centre = np.array(
        [[1 / pose.zoom, 0, -width / 2 / pose.zoom], [0, 1 / pose.zoom, -height / 2 / pose.zoom], [0, 0, 1]]
    )
    turned = _turn(pose)
    plane_to_lens = np.column_stack((turned[:, 0], turned[:, 1], (0.0, 0.0, focal)))
    plane_to_frame = np.diag([focal, focal, 1.0]) @ plane_to_lens
    place = np.array(
        [
            [source_px[0] / width, 0, source_px[0] * (0.5 + pose.x)],
            [0, source_px[1] / height, source_px[1] * (0.5 + pose.y)],
            [0, 0, 1],
        ]
    )
    matrix = place @ np.linalg.inv(plane_to_frame) @ centre
    scaled: Matrix = matrix / matrix[2, 2]
    return scaled


def _turn(pose: CameraPose) -> Matrix:
    (cr, sr), (cy, sy), (cp, sp) = ((np.cos(a), np.sin(a)) for a in (pose.roll, pose.yaw, pose.pitch))
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turned: Matrix = yaw @ pitch @ roll
    return turned


def cover(still: Image.Image, size: Size, poses: Sequence[CameraPose]) -> Image.Image:
    """The image cut to the frame's aspect, as fine as the closest pose needs, never finer than it helps."""
    closest = max(pose.zoom for pose in poses)
    scale = min(max(closest, 1.25), FINEST)
    return ImageOps.fit(still, (round(size[0] * scale), round(size[1] * scale)), Image.Resampling.LANCZOS)


def shoot(source: Image.Image, pose: CameraPose, size: Size) -> Image.Image:
    """The frame that the camera sees: sampled at sub-pixel places, so that slow moves do not stutter."""
    if pose.roll == pose.yaw == pose.pitch == 0:
        return source.resize(size, Image.Resampling.BICUBIC, box=_box(pose, source.size))
    matrix = homography(pose, size, source.size)
    return source.transform(size, Image.Transform.PERSPECTIVE, tuple(matrix.ravel()[:8]), Image.Resampling.BILINEAR)


def _box(pose: CameraPose, source_px: Size) -> tuple[float, float, float, float]:
    width, height = source_px
    across, down = width / pose.zoom, height / pose.zoom
    left = min(max(width * (0.5 + pose.x) - across / 2, 0.0), width - across)
    top = min(max(height * (0.5 + pose.y) - down / 2, 0.0), height - down)
    return left, top, left + across, top + down
