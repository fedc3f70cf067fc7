"""The checks of one run: which clips still need one, and what was found, duplicates among the clips included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.assets.addresses import is_local
from pipeline.config.settings import CheckSettings
from pipeline.records import LOOP, Attempt, State
from pipeline.reports.checks.findings import ClipCheck, Grade, Key, Kind, RunChecks, unchecked
from pipeline.reports.checks.jobs import CheckJob, Taken
from pipeline.reports.checks.store import load_check

NOT_YET = "not checked yet, `dop check` does it"

MAX_COMPARED = 20_000
"""Clips of a run whose pictures are compared with each other; the fingerprints of so many take 120 MB."""


def clip_path(attempt: Attempt, outputs: Path) -> Path | None:
    """The attempt's clip, where it was downloaded."""
    if attempt.state is not State.DONE or attempt.local_path is None:
        return None
    return outputs / attempt.local_path


def jobs_of(
    attempts: Iterable[Attempt], outputs: Path, settings: CheckSettings, *, samples: Path, again: bool = False
) -> list[CheckJob]:
    """A job for every clip without a result, or with `again` for every clip; one start frame for each input image.

    Args:
        samples: the folder of the sandbox's own pictures.
    """
    jobs: dict[Path, CheckJob] = {}
    begun: set[str] = set()
    for attempt in attempts:
        clip = clip_path(attempt, outputs)
        if clip is None or clip in jobs or not clip.is_file():
            continue
        first = attempt.params.input_images[0] not in begun
        begun.add(attempt.params.input_images[0])
        known = None if again else load_check(clip)
        if known is None or known.grade is Grade.UNCHECKED:
            jobs[clip] = job_of(attempt, clip, settings, samples=samples, wants_start=first)
    return list(jobs.values())


def job_of(
    attempt: Attempt, clip: Path, settings: CheckSettings, *, samples: Path, wants_start: bool = False
) -> CheckJob:
    """What to check of one attempt's clip."""
    params = attempt.params
    start = local_picture(params.input_images[0], samples)
    end = local_picture(params.input_images_end[-1], samples) if params.input_images_end else None
    return CheckJob(
        clip=str(clip),
        preset=attempt.motion,
        start="" if start is None else str(start),
        end="" if end is None else str(end),
        has_end=bool(params.input_images_end),
        loop=LOOP in attempt.tags,
        small=settings.small,
        max_cpu_s=settings.max_cpu_s,
        wants_start=wants_start,
        note="" if start is not None else "start picture not compared: it is not on this machine",
    )


def local_picture(image: str, samples: Path) -> Path | None:
    """The file of an input image on this machine; None for one that only the network has."""
    if image.startswith("sandbox:"):
        found = samples / f"{image.removeprefix('sandbox:')}.jpg"
        # `sandbox:../x` must not lead out of the folder.
        return found if found.is_file() and found.parent == samples else None
    path = Path(image)
    return path if is_local(image) and path.is_file() else None


def load_checks(attempts: Iterable[Attempt], outputs: Path) -> RunChecks:
    """The kept results of a run's clips; a clip that repeats another one gets that as a finding."""
    found: dict[Key, ClipCheck] = {}
    taken: list[Taken] = []
    keys: list[Key] = []
    for attempt in attempts:
        clip = clip_path(attempt, outputs)
        if clip is None:
            continue
        key = (attempt.request_id, attempt.attempt)
        check = load_check(clip) or unchecked(NOT_YET)
        found[key] = check
        if check.grade is not Grade.UNCHECKED and len(taken) < MAX_COMPARED:
            keys.append(key)
            taken.append(
                Taken(
                    name=attempt.row_id,
                    sha256=attempt.sha256 or "",
                    params=repr(attempt.params),
                    fingerprint=check.fingerprint,
                )
            )
    if len(taken) > 1:
        _find_duplicates(found, keys, taken)
    return RunChecks(found=found)


def _find_duplicates(found: dict[Key, ClipCheck], keys: Sequence[Key], taken: Sequence[Taken]) -> None:
    """Adds the finding to each clip that repeats an earlier one."""
    from pipeline.reports.checks.duplicates import duplicates  # noqa: PLC0415 - brings numpy

    for later, earlier in duplicates(taken).items():
        found[keys[later]] = _repeating(found[keys[later]], taken[earlier].name)


def _repeating(check: ClipCheck, other: str) -> ClipCheck:
    """The result with one more finding."""
    return replace(
        check,
        grade=Grade.BAD,
        reasons=(f"{Kind.DUPLICATE} of {other}", *check.reasons),
        kinds=(Kind.DUPLICATE, *check.kinds),
    )
