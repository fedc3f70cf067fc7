"""The motion presets and the camera: every preset moves, no frame looks past the image's edge."""

from __future__ import annotations

import csv
from itertools import pairwise

import numpy as np
import pytest

from pipeline.sandbox.rendering.camera import framed, homography
from pipeline.sandbox.rendering.effects import make_effect
from pipeline.sandbox.rendering.motion import _LOOKS, CATALOGUE, PATHS, motion_style, poses, preset_name, presets

SIZE = (160, 90)
CORNERS = np.array([[0, 160, 0, 160], [0, 0, 90, 90], [1, 1, 1, 1]], dtype=float)


def catalogue_names() -> list[str]:
    with CATALOGUE.open(encoding="utf-8", newline="") as lines:
        return [row["name"] for row in csv.DictReader(lines)]


def test_the_catalogue_has_120_presets_with_ids_of_their_own() -> None:
    assert len(presets()) == 120
    assert len(catalogue_names()) == 120


def test_an_id_is_found_in_any_case_and_an_unknown_one_is_general() -> None:
    assert preset_name("81CA2CD2-05db-4222-9ba0-a32e5185adfb") == "Dolly In"
    assert preset_name("3c90c3cc-0d44-4b50-8888-8dd25736052a") == "General"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("Dolly In", "push"),
        ("Zoom Out", "unzoom"),
        ("Crane Up", "crane up"),
        ("360 Orbit", "orbit"),
        ("Handheld", "handheld"),
        ("Dutch Angle", "dutch"),
        ("Crash Zoom In", "crash in"),
        ("Bullet Time", "bullet"),
        ("Static", "static"),
        ("Whip Pan", "whip"),
        ("Kiss", "general"),
    ],
)
def test_a_preset_moves_like_its_name(name: str, path: str) -> None:
    assert motion_style(name).path == path


def test_every_line_of_the_table_of_looks_is_used_and_names_what_exists() -> None:
    names = [name.lower() for name in catalogue_names()]
    for word, path, effect in _LOOKS:
        assert path in PATHS
        if effect:
            assert make_effect(effect, SIZE, amount=1, random=np.random.default_rng(1)) is not None
        assert any(word in name for name in names), word


@pytest.mark.parametrize("path", sorted(PATHS))
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_no_frame_looks_past_the_edge_at_full_strength(path: str, side: float) -> None:
    look = next(
        (motion_style(name) for name in catalogue_names() if motion_style(name).path == path), motion_style("General")
    )
    moves = framed(poses(look, frames=24, strength=1.0, side=side, phase=0.3), SIZE)
    for pose in [*moves[::3], moves[-1]]:
        seen = homography(pose, SIZE, (1, 1)) @ CORNERS
        place = seen[:2] / seen[2]
        assert place.min() >= 0
        assert place.max() <= 1


@pytest.mark.parametrize("name", catalogue_names())
def test_every_preset_changes_the_view_from_frame_to_frame(name: str) -> None:
    moves = poses(motion_style(name), frames=24, strength=0.5, side=1.0, phase=0.2)
    assert sum(a != b for a, b in pairwise(moves)) >= 12


def test_strength_is_amplitude() -> None:
    weak, strong = (
        poses(motion_style("Dolly In"), frames=10, strength=s, side=1.0, phase=0.0)[-1].zoom for s in (0.1, 0.9)
    )
    assert 1 < weak < strong


def test_side_turns_an_orbit_round() -> None:
    left, right = (
        poses(motion_style("360 Orbit"), frames=10, strength=0.5, side=s, phase=0.0)[-1].yaw for s in (-1.0, 1.0)
    )
    assert left == -right != 0
