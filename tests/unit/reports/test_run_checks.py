"""Checks of a run: what is kept beside the clips, which clips are due, and workers that die."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from pipeline.config.settings import CheckSettings
from pipeline.records import Attempt, State
from pipeline.reports.checks import pool
from pipeline.reports.checks.findings import ClipCheck, Grade, Kind, counts_as_failure, unchecked
from pipeline.reports.checks.jobs import CheckJob
from pipeline.reports.checks.pool import check_all
from pipeline.reports.checks.run_checks import NOT_YET, jobs_of, load_checks, local_picture
from pipeline.reports.checks.store import check_path, load_check, save_check
from pipeline.reports.checks.worker import answer
from pipeline.reports.sheet.thumbnails import poster_path, start_path
from pipeline.sandbox.rendering.clip import ClipPlan, render
from tests.support.factories import make_attempt
from tests.unit.reports.test_clip_checks import png, scene

SETTINGS = CheckSettings()
SAMPLES = Path("/no/samples")
FOUND = ClipCheck(
    grade=Grade.BAD, reasons=("cut at 2.5 s",), kinds=(Kind.CUT,), metrics={"cut": 0.9}, fingerprint=b"x" * 5760
)


def bought(folder: Path, name: str, *, seed: int = 1, content: bytes = b"clip") -> Attempt:
    (folder / name).write_bytes(content)
    return make_attempt(state=State.DONE, local_path=name, seed=seed, request_id=f"{seed:032x}", row_id=f"row-{seed}")


def test_a_result_is_kept_beside_its_clip_and_belongs_to_that_file(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"clip")
    save_check(clip, FOUND)
    assert load_check(clip) == FOUND
    clip.write_bytes(b"another clip")
    assert load_check(clip) is None
    check_path(clip).write_text("{", encoding="utf-8")
    assert load_check(clip) is None


def test_clips_without_a_result_are_due_and_again_means_all(tmp_path: Path) -> None:
    attempts = [bought(tmp_path, "a.mp4", seed=1), bought(tmp_path, "b.mp4", seed=2), bought(tmp_path, "c.mp4", seed=3)]
    save_check(tmp_path / "a.mp4", FOUND)
    save_check(tmp_path / "b.mp4", unchecked("more than 5 s of CPU"))
    due = jobs_of(attempts, tmp_path, SETTINGS, samples=SAMPLES)
    assert [Path(job.clip).name for job in due] == ["b.mp4", "c.mp4"]
    every = jobs_of(attempts, tmp_path, SETTINGS, samples=SAMPLES, again=True)
    assert [Path(job.clip).name for job in every] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [job.wants_start for job in every] == [True, False, False]
    assert every[0].note == "start picture not compared: it is not on this machine"


def test_an_image_of_a_job_is_a_local_file_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"")
    assert local_picture(str(tmp_path / "cat.jpg"), SAMPLES) == tmp_path / "cat.jpg"
    assert local_picture("sandbox:cat", tmp_path) == tmp_path / "cat.jpg"
    assert local_picture("sandbox:../cat", tmp_path / "x") is None
    assert local_picture("https://example.com/cat.jpg", tmp_path) is None


def test_the_same_pictures_under_other_parameters_are_named(tmp_path: Path) -> None:
    attempts = [bought(tmp_path, f"{seed}.mp4", seed=seed) for seed in (1, 2, 3)]
    ok = ClipCheck(grade=Grade.OK, fingerprint=bytes(range(240)) * 24)
    for name in ("1.mp4", "2.mp4"):
        save_check(tmp_path / name, ok)
    checks = load_checks(attempts, tmp_path)
    first, second, third = (checks.of(attempt) for attempt in attempts)
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.grade is Grade.OK
    assert (second.grade, second.reasons) == (Grade.BAD, ("duplicate of row-1",))
    assert (third.grade, third.reasons) == (Grade.UNCHECKED, (f"unchecked: {NOT_YET}",))
    assert checks.counts() == {"ok": 1, "warn": 0, "bad": 1, "unchecked": 1, "kinds": {"duplicate": 1}}


def test_two_takes_of_one_request_may_be_equal(tmp_path: Path) -> None:
    one = bought(tmp_path, "1.mp4", seed=1)
    other = make_attempt(state=State.DONE, local_path="2.mp4", seed=1, request_id="f" * 32, take=2)
    (tmp_path / "2.mp4").write_bytes(b"clip")
    for name in ("1.mp4", "2.mp4"):
        save_check(tmp_path / name, ClipCheck(grade=Grade.OK, fingerprint=bytes(range(240)) * 24))
    assert load_checks([one, other], tmp_path).counts()["bad"] == 0


@pytest.mark.parametrize(
    ("grade", "fail_on", "expected"),
    [
        ("bad", (), False),
        ("bad", ("all",), True),
        ("bad", ("cut",), True),
        ("bad", ("frozen",), False),
        ("warn", ("all",), False),
        ("unchecked", ("all",), False),
    ],
)
def test_a_bad_clip_is_a_failure_where_its_kind_counts(grade: str, fail_on: tuple[str, ...], expected: bool) -> None:
    assert counts_as_failure(grade, ("cut",), fail_on) is expected


def test_one_pass_leaves_result_poster_and_start_frame(tmp_path: Path) -> None:
    clip, picture = tmp_path / "a.mp4", tmp_path / "start.png"
    picture.write_bytes(png(scene(3)))
    render(ClipPlan(image=picture.read_bytes(), motion="Dolly In", long_side_px=240), clip)
    done: list[None] = []
    job = CheckJob(clip=str(clip), preset="Dolly In", start=str(picture), wants_start=True)
    check_all([job], done=lambda: done.append(None))
    found = load_check(clip)
    assert found is not None
    assert found.grade is Grade.OK, found.reasons
    assert poster_path(clip).stat().st_size > 500
    assert start_path(clip).stat().st_size > 500
    assert len(done) == 1


def test_a_worker_that_dies_leaves_a_word_and_the_next_clip_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"no video")
    start, starts = pool._start, iter([True, False])

    def start_badly() -> object:
        process = start()
        if next(starts):
            process.kill()
        return process

    monkeypatch.setattr(pool, "_start", start_badly)
    check_all([CheckJob(clip=str(tmp_path / name), preset="") for name in ("a.mp4", "b.mp4")], workers=1)
    first, second = (load_check(tmp_path / name) for name in ("a.mp4", "b.mp4"))
    assert first is not None
    assert second is not None
    assert first.grade is Grade.UNCHECKED
    assert second.kinds == (Kind.UNREADABLE,)


def test_a_run_that_is_stopped_leaves_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    stop = threading.Event()
    stop.set()
    check_all([CheckJob(clip=str(tmp_path / "a.mp4"), preset="")], stop=stop)
    assert load_check(tmp_path / "a.mp4") is None


def test_a_worker_answers_a_job_it_cannot_read() -> None:
    assert "error" in answer("{")
    assert "error" in answer(json.dumps({"unknown": 1}))


def test_a_clip_whose_decoder_cannot_be_started_is_unchecked_and_keeps_no_caller_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> object:
        raise OSError("no more processes")

    monkeypatch.setattr(pool, "_start", refused)
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"a clip")
    done: list[str] = []
    pool.check_all([CheckJob(clip=str(clip), preset="General")], done=lambda: done.append("a"))
    found = load_check(clip)
    assert done == ["a"]
    assert found is not None
    assert found.reasons == ("unchecked: the decoder could not be asked (no more processes)",)
