"""Defects as codecs leave them, and good clips that resemble them: short clips, one check at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.checkclips.pictures import paint
from pipeline.reports.checks.allowances import NONE, allowance_of
from pipeline.reports.checks.continuity import strobe
from pipeline.reports.checks.exposure import black, flash, flicker
from pipeline.reports.checks.findings import Kind
from pipeline.reports.checks.framing import judge
from pipeline.reports.checks.reference import Reference
from pipeline.reports.checks.signals import Signals
from pipeline.reports.checks.stillness import frozen
from tests.unit.reports.test_clip_checks import Pixels, filmed, panned, scene

COUNT = 36


def signals_of(frames: list[Pixels]) -> Signals:
    return Signals(filmed(frames))


def lit(frames: list[Pixels], light: np.ndarray) -> list[Pixels]:
    return [frame * gain for frame, gain in zip(frames, light, strict=True)]


def no_blanks(signals: Signals) -> np.ndarray:
    return np.zeros(signals.film.count, dtype=bool)


def test_flicker_is_found_in_a_clip_of_twelve_pictures_in_24_frames_and_a_fade_there_is_none() -> None:
    frames = [frame for frame in panned(scene(1), COUNT // 2, 30) for _ in range(2)]
    alternating = signals_of(lit(frames, 1 + 0.02 * (-1.0) ** np.arange(COUNT)))
    faded = signals_of(lit(frames, np.repeat(np.linspace(1.0, 0.6, COUNT // 2), 2)))
    assert flicker(alternating, NONE, no_blanks(alternating))[0]
    assert not flicker(faded, NONE, no_blanks(faded))[0]


def test_a_clip_without_any_picture_has_no_flicker_to_measure() -> None:
    blank = signals_of([np.zeros((90, 160, 3))] * COUNT)
    assert flicker(blank, NONE, np.ones(COUNT, dtype=bool)) == ([], 0.0)


def test_a_jump_after_which_nothing_is_left_of_the_picture_measures_without_a_warning() -> None:
    jumping = signals_of(panned(scene(1), COUNT, 30))
    jumping.steps.maps[12, [0, 3]] = 10_000.0
    assert flicker(jumping, NONE, no_blanks(jumping))[0] == []


def test_frames_that_are_black_but_for_blocks_of_the_picture_before_are_black() -> None:
    frames = [frame * 0.1 + 215 for frame in panned(scene(2), COUNT, 20)]  # pale: the blocks have more contrast
    for at in (14, 15, 16):
        left_over = np.zeros_like(frames[at])
        left_over[30:40, 50:70] = frames[at][30:40, 50:70]
        frames[at] = left_over
    found, mask = black(signals_of(frames), picture_contrast=None)
    assert found
    assert np.flatnonzero(mask).tolist() == [14, 15, 16]


def test_a_frame_that_is_shown_for_a_second_is_a_freeze() -> None:
    film = filmed(panned(scene(3), COUNT, 60))
    held = replace(film, times=film.times + np.where(np.arange(COUNT) > 20, 1.0, 0.0))
    assert frozen(Signals(held), NONE, np.zeros(COUNT, dtype=bool))[0]
    assert not frozen(Signals(film), NONE, np.zeros(COUNT, dtype=bool))[0]


def test_a_rest_is_a_freeze_where_the_other_rests_have_tremor() -> None:
    random = np.random.default_rng(4)
    picture, allowance = scene(4), allowance_of("Crash Zoom In")
    grainy = [panned(picture, 2)[0] + random.normal(0, 1, (90, 160, 1)) for _ in range(28)]
    moving = panned(picture, 8, 60)
    stopped = [*grainy[:14], *[grainy[14]] * 16, *moving, *grainy[14:]]
    assert frozen(signals_of(stopped), allowance, np.zeros(len(stopped), dtype=bool))[0]
    rests = [*[grainy[0]] * 16, *moving, *[grainy[1]] * 20]
    assert not frozen(signals_of(rests), allowance, np.zeros(len(rests), dtype=bool))[0]


def test_stills_that_are_mirrored_in_turn_are_a_strobe() -> None:
    still = panned(scene(5), 2)[0]
    turned = [still, still[:, ::-1], 255 - still, still[::-1]]
    assert strobe(signals_of([turned[n // 4 % 4] for n in range(60)]), NONE)[0]
    assert not strobe(signals_of([frame for frame in panned(scene(5), 30, 60) for _ in range(2)]), NONE)[0]


def test_a_crash_zoom_may_come_late_and_a_freeze_of_four_seconds_is_none_of_its_rests() -> None:
    picture, allowance = scene(6), allowance_of("Crash Zoom In")
    moving = panned(picture, 8, 60)
    late = signals_of([*[moving[0]] * 70, *moving, *[moving[-1]] * 20])
    assert not frozen(late, allowance, no_blanks(late))[0]
    too_long = signals_of([*panned(picture, 24, 60), *[moving[-1]] * 96])
    assert frozen(too_long, allowance, no_blanks(too_long))[0]


def test_a_star_field_does_not_flicker() -> None:
    random = np.random.default_rng(7)
    stars = [np.where(random.random((90, 160, 1)) < 0.01, 255.0, 16.0 + 0.5 * (-1) ** n) for n in range(COUNT)]
    dark = signals_of([frame * np.ones(3) for frame in stars])
    assert not flicker(dark, NONE, no_blanks(dark))[0]


def test_level_bands_do_not_say_whether_they_are_squeezed_and_other_pictures_do() -> None:
    def found(picture: Pixels, shown: Pixels) -> list[Kind]:
        reference = Reference(width=300, height=400, views=(picture.astype(np.uint8),))
        findings, _ = judge(filmed([shown] * 2, width=240, height=320), 0, reference, Kind.WRONG_START)
        return [finding.kind for finding in findings]

    sea = np.asarray(paint("beach", np.random.default_rng(2), (300, 400)).convert("RGB"), dtype=np.float64)
    photo = scene(5, 300, 400)
    assert found(sea, sea[::2, 40:260]) == [], "its own middle looks the same"
    assert found(photo, photo[::2, 40:260]) == [Kind.FORMAT]


def test_a_strong_flash_in_a_fast_move_over_rows_of_letters_is_found() -> None:
    random = np.random.default_rng(3)
    rows = np.repeat(np.kron(random.integers(0, 2, (12, 400)), np.ones((8, 2)))[:, :, None], 3, axis=2)
    page = 225 - 60 * rows
    frames = [page[:90, 14 * n : 14 * n + 160] for n in range(COUNT)]
    lit = [frame - 70 * (20 <= n < 22) for n, frame in enumerate(frames)]
    assert [finding.kind for finding in flash(signals_of(lit), NONE, no_blanks(signals_of(lit)))[0]] == [Kind.FLASH]
    assert flash(signals_of(frames), NONE, no_blanks(signals_of(frames)))[0] == []


def test_flashes_of_a_preset_over_one_scene_are_no_strobe_and_unrelated_stills_are() -> None:
    count = 60
    frames = [frame * 0.4 for frame in panned(scene(6), count, 20)]
    fog = [scene(40 + n, 160, 90) * 0.2 + 190 for n in range(count)]
    lit = [fog[n] if n % 4 < 2 and 10 < n < 56 else frame for n, frame in enumerate(frames)]
    stills = [scene(100 + n // 3, 160, 90) if 10 < n < 56 else frame for n, frame in enumerate(frames)]
    paparazzi = allowance_of("Paparazzi")
    assert strobe(signals_of(lit), paparazzi)[0] == []
    assert strobe(signals_of(stills), paparazzi)[0]


def test_a_freeze_whose_blocks_a_codec_changes_is_found_where_full_motion_ends_and_begins_at_once() -> None:
    frames = panned(scene(7, 400), 75, 140)
    random = np.random.default_rng(1)
    blocks = [0.3 * np.kron(random.normal(size=(9, 16)), np.ones((10, 10)))[:, :, None] for _ in range(14)]
    held = [frames[30] + noise for noise in blocks]
    film = filmed([*frames[:30], *held, *frames[44:]])
    assert frozen(Signals(film), NONE, np.zeros(75, dtype=bool))[0]
    slow = [*frames[:30], *[panned(scene(7, 400), 1200, 140)[480 + n] for n in range(14)], *frames[44:]]
    assert not frozen(Signals(filmed(slow)), NONE, np.zeros(75, dtype=bool))[0]
