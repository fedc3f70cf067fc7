"""The clip checks on frames made for them: each defect is found, and its good twin is not reported."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.checkclips.cases import encode
from pipeline.reports.checks.allowances import ALLOWANCES, allowance_of
from pipeline.reports.checks.check import Subject, check_clip, check_film
from pipeline.reports.checks.duplicates import duplicates, fingerprint
from pipeline.reports.checks.findings import ClipCheck, Grade, Kind
from pipeline.reports.checks.frames import Film, UndecodableError, luma_of, read_film
from pipeline.reports.checks.jobs import Taken
from pipeline.reports.checks.reference import UnreadablePictureError, read_reference
from pipeline.sandbox.rendering.clip import ClipPlan, render

FPS = 24
COUNT = 5 * FPS
Pixels = NDArray[np.float64]


def scene(seed: int, width: int = 260, height: int = 150) -> Pixels:
    """A picture with the fine and broad structure of a photograph."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(random.normal(size=(height, width))) / frequency
        spectrum[0, 0] = 0
        plane = np.fft.irfft2(spectrum, s=(height, width))
        planes.append(120 + 40 * plane / plane.std())
    return np.asarray(np.clip(np.stack(planes, axis=-1), 0, 255))


def panned(picture: Pixels, count: int = COUNT, reach: int = 60) -> list[Pixels]:
    """Frames of a camera that moves evenly from left to right."""
    return [picture[20:110, round(10 + reach * n / (count - 1)) :][:, :160] for n in range(count)]


def filmed(frames: list[Pixels], *, fps: float = FPS, width: int = 640, height: int = 360) -> Film:
    rgb = np.stack([np.clip(frame, 0, 255).astype(np.uint8) for frame in frames])
    luma = luma_of(rgb)
    last = len(frames) - 1
    ends = tuple(range(max(0, last - 10), last + 1, 2))
    return Film(
        width=width,
        height=height,
        codec="h264",
        times=np.arange(len(frames)) / fps,
        rgb=rgb,
        luma=luma,
        start_detail=tuple(luma[:4]),
        end_detail=tuple(luma[n] for n in ends),
        end_indices=ends,
        duration_s=len(frames) / fps,
        stopped=False,
    )


def png(picture: Pixels) -> bytes:
    target = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def checked(frames: list[Pixels], *, preset: str = "Dolly Right", loop: bool = False) -> ClipCheck:
    return check_film(filmed(frames), Subject(preset=preset, loop=loop))


def blurred(frame: Pixels, radius: int) -> Pixels:
    for axis in (0, 1):
        frame = np.mean([np.roll(frame, shift, axis=axis) for shift in range(-radius, radius + 1)], axis=0)
    return frame


def frozen(frames: list[Pixels]) -> list[Pixels]:
    return [*frames[:40], *[frames[40]] * 30, *frames[70:]]


def black(frames: list[Pixels]) -> list[Pixels]:
    return [*frames[:40], *[np.zeros_like(frames[0])] * 4, *frames[44:]]


def flashed(frames: list[Pixels]) -> list[Pixels]:
    return [*frames[:40], frames[40] + 50, *frames[41:]]


def cut(frames: list[Pixels]) -> list[Pixels]:
    return [*frames[:60], *panned(scene(99))[60:]]


def flickered(frames: list[Pixels]) -> list[Pixels]:
    return [frame * (1 + 0.03 * (-1) ** n) for n, frame in enumerate(frames)]


def strobed(frames: list[Pixels]) -> list[Pixels]:
    shots = [panned(scene(seed), 2)[0] for seed in range(200, 220)]
    return [*frames[:20], *[shots[n // 4] for n in range(80)], *frames[100:]]


def softened(frames: list[Pixels]) -> list[Pixels]:
    return [blurred(frame, round(4 * n / len(frames))) for n, frame in enumerate(frames)]


def drifted(frames: list[Pixels]) -> list[Pixels]:
    gains = np.array([0.22, -0.03, -0.22])
    return [frame * (1 + gains * n / len(frames)) for n, frame in enumerate(frames)]


def rested(frames: list[Pixels]) -> list[Pixels]:
    random = np.random.default_rng(5)
    return [frames[0] + random.normal(0, 2, frames[0].shape[:2])[:, :, None] for _ in frames]


@pytest.mark.parametrize(
    ("kind", "spoil", "grade"),
    [
        (Kind.FROZEN, frozen, Grade.BAD),
        (Kind.BLACK, black, Grade.BAD),
        (Kind.FLASH, flashed, Grade.BAD),
        (Kind.CUT, cut, Grade.BAD),
        (Kind.FLICKER, flickered, Grade.BAD),
        (Kind.STROBE, strobed, Grade.BAD),
        (Kind.SOFT, softened, Grade.BAD),
        (Kind.COLOR_DRIFT, drifted, Grade.WARN),
        (Kind.STILL, rested, Grade.WARN),
    ],
)
def test_each_defect_is_found_and_named_alone(
    kind: Kind, spoil: Callable[[list[Pixels]], list[Pixels]], grade: Grade
) -> None:
    good = panned(scene(3))
    assert checked(good).grade is Grade.OK, checked(good).reasons
    check = checked(spoil(good))
    assert check.kinds == (kind,), check.reasons
    assert check.grade is grade
    assert check.reasons[0].startswith(f"{kind} ")


def test_twelve_pictures_in_24_frames_are_no_freeze() -> None:
    frames = panned(scene(4))
    assert checked([frames[n - n % 2] for n in range(COUNT)]).grade is Grade.OK


def test_presets_are_given_what_they_promise() -> None:
    good = panned(scene(3))
    assert checked(rested(good), preset="Static").grade is Grade.OK
    assert checked(flashed(good), preset="Paparazzi").grade is Grade.OK
    assert checked(cut(good), preset="Roll Transition").grade is Grade.WARN
    assert Kind.FROZEN in checked(frozen(good), preset="Static").kinds


def test_every_allowance_names_a_preset_of_the_catalogue() -> None:
    names = (Path(__file__).resolve().parents[3] / "configs" / "motions.csv").read_text(encoding="utf-8")
    for name in ALLOWANCES:
        assert f"\n{name}," in names, name
    assert allowance_of("whip pan") is ALLOWANCES["Whip Pan"]
    assert allowance_of("no such preset") == allowance_of(None)


def test_the_start_picture_is_found_cropped_and_tinted_and_another_is_not() -> None:
    picture = scene(3)
    film = filmed([frame * np.array([1.06, 0.98, 0.93]) + 4 for frame in panned(picture)])
    whole = picture[5:125, 5:180]
    assert check_film(film, Subject(preset="Dolly Right", start=png(whole))).grade is Grade.OK
    check = check_film(film, Subject(preset="Dolly Right", start=png(scene(8))))
    assert check.kinds == (Kind.WRONG_START,)


def test_an_end_picture_is_compared_with_the_last_frame() -> None:
    frames = panned(scene(3))
    right = check_film(filmed(frames), Subject(preset="Dolly Right", end=png(frames[-1])))
    wrong = check_film(filmed(frames), Subject(preset="Dolly Right", end=png(scene(8))))
    assert right.grade is Grade.OK
    assert wrong.kinds == (Kind.WRONG_END,)


def test_an_end_picture_that_is_shown_before_a_fade_counts() -> None:
    frames = panned(scene(3))
    faded = [frame * min(1.0, (COUNT - 1 - n) / 16) for n, frame in enumerate(frames)]
    assert check_film(filmed(faded), Subject(preset="Dolly Right", end=png(frames[-18]))).grade is Grade.OK
    wrong = check_film(filmed(faded), Subject(preset="Dolly Right", end=png(scene(8))))
    assert wrong.kinds == (Kind.WRONG_END,)


def test_a_squeezed_picture_is_a_format_and_a_crop_is_none() -> None:
    picture = scene(3)[20:110, 10:170]
    squeezed = np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((112, 90)).resize((160, 130)), dtype=float)
    frames = [squeezed[n // 8 : n // 8 + 110, :156] for n in range(COUNT)]
    film = filmed(frames, width=448, height=316)
    assert check_film(film, Subject(preset="Tilt Up", start=png(picture))).kinds == (Kind.FORMAT,)


def test_pictures_are_read_as_people_see_them() -> None:
    upright = Image.fromarray(scene(3).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    upright.rotate(90, expand=True).save(turned, "JPEG", exif=exif, quality=95, subsampling=0)
    reference = read_reference(turned.getvalue())
    assert (reference.width, reference.height) == upright.size
    assert np.abs(reference.views[0].astype(float) - np.asarray(upright)).mean() < 6

    see_through = upright.convert("RGBA")
    see_through.putalpha(128)
    content = io.BytesIO()
    see_through.save(content, "PNG")
    assert len(read_reference(content.getvalue()).views) == 4
    with pytest.raises(UnreadablePictureError):
        read_reference(b"no picture")


def test_an_unreadable_picture_is_a_note_and_fails_nothing() -> None:
    check = check_film(filmed(panned(scene(3))), Subject(preset="Dolly Right", start=b"no picture"))
    assert check.grade is Grade.OK
    assert check.reasons[0].startswith("start picture not compared: ")


def test_a_loop_is_to_lead_on_to_its_start() -> None:
    frames = panned(scene(3))
    there_and_back = [*frames[::2], *frames[::-2]]
    assert checked(there_and_back, loop=True).grade is Grade.OK
    assert checked(frames, loop=True).kinds == (Kind.LOOP_SEAM,)


def test_the_same_pictures_are_found_at_another_light_and_noise() -> None:
    random = np.random.default_rng(1)
    films = [filmed(panned(scene(seed))) for seed in (3, 4)]
    films.append(filmed([frame + random.normal(0, 2, frame.shape) + 1 for frame in panned(scene(3))]))
    films.append(filmed(panned(scene(3), reach=30)))
    clips = [
        Taken(name=str(n), sha256="", params=str(n), fingerprint=fingerprint(film)) for n, film in enumerate(films)
    ]
    assert duplicates(clips) == {2: 0}


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "unreadable"), (b"<html></html>", "unreadable"), (bytes(range(256)) * 40, "unreadable")]
)
def test_a_file_that_is_no_video_is_unreadable(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    check = check_clip(tmp_path / "clip.mp4", Subject())
    assert (check.grade, check.kinds) == (Grade.BAD, (Kind(word),))


def test_a_missing_file_is_unchecked(tmp_path: Path) -> None:
    assert check_clip(tmp_path / "none.mp4", Subject()).grade is Grade.UNCHECKED


def test_a_real_clip_passes_whole_and_fails_cut_short(tmp_path: Path) -> None:
    picture, clip = png(scene(3)), tmp_path / "clip.mp4"
    render(ClipPlan(image=picture, motion="Dolly In", long_side_px=240), clip)
    good = check_clip(clip, Subject(start=picture, preset="Dolly In"))
    assert good.grade is Grade.OK, good.reasons
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 2 // 3])
    assert check_clip(clip, Subject(start=picture, preset="Dolly In")).kinds == (Kind.UNREADABLE,)


def test_a_clip_that_lost_the_content_of_a_packet_is_unreadable_though_its_decoder_passes_it(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    encode([frame.astype(np.float32) for frame in panned(scene(3), 12)], 24, clip, "hevc", 20)
    assert read_film(clip, max_cpu_s=9) is not None
    content = clip.read_bytes()
    at = content.index(b"mdat") + 2_000
    clip.write_bytes(content[:at] + bytes(300) + content[at + 300 :])
    with pytest.raises(UndecodableError, match="damaged"):
        read_film(clip, max_cpu_s=9)


def test_a_check_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    render(ClipPlan(image=png(scene(3)), motion="Dolly In", long_side_px=240), clip)
    assert check_clip(clip, Subject(), max_cpu_s=0.0).grade is Grade.UNCHECKED
