"""How many broken clips the checks find, and how many good ones they report: over all presets, on clips made for it.

    .venv/bin/python -m benchmarks.checks                  both sets (10 to 20 minutes on two cores)
    .venv/bin/python -m benchmarks.checks --quick          a small part of both
    .venv/bin/python -m benchmarks.checks --seed 5         other clips of the same kinds
    .venv/bin/python -m benchmarks.checks --write-docs     also docs/internals/checks-figures.md
    .venv/bin/python -m benchmarks.checks --pictures       only docs/pictures/check-*.jpg

The first set is of the kind that the constants of the checks were set on. The held-out set has other scenes, seeds,
sizes, rates and codecs, and stronger changes by the model; no constant was set on it. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkclips.cases import KINDS, Case, make, make_cases
from benchmarks.checkclips.gallery import draw_gallery
from pipeline.reports.checks.check import Subject, check_clip, check_film
from pipeline.reports.checks.duplicates import duplicates
from pipeline.reports.checks.findings import Grade
from pipeline.reports.checks.frames import TooLargeError, UndecodableError, read_film
from pipeline.reports.checks.jobs import Taken

MOTIONS = Path(__file__).resolve().parents[1] / "configs" / "motions.csv"
GOOD, EACH, SEED = 2, 20, 11
MAX_CPU_S = 30.0
"""The benchmark shares its machine: a clip gets as long as it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One clip: what was put in, what was found, CPU seconds of the check without decoding."""

    case: Case
    grade: Grade
    kinds: tuple[str, ...]
    cpu_s: float

    @property
    def is_hit(self) -> bool:
        """Whether the defect was found; a clip without any motion is frozen as well as still."""
        return self.case.kind in self.kinds or (self.case.kind == "still" and "frozen" in self.kinds)


def judge(case: Case, seed: int) -> Result:
    """Make the clip of a case, check it, throw it away."""
    with tempfile.TemporaryDirectory() as folder:
        made = make(case, Path(folder), seed=seed)
        subject = Subject(start=made.start, end=made.end, preset=case.preset, loop=made.loop)
        try:
            film = read_film(made.clip, max_cpu_s=MAX_CPU_S)
        except (UndecodableError, TooLargeError):
            film = None
        started = time.thread_time()
        check = check_clip(made.clip, subject) if film is None else check_film(film, subject)
        cpu_s = 0.0 if film is None else time.thread_time() - started
        kinds: Iterable[str] = check.kinds
        if made.twin is not None:
            twin = check_clip(made.twin, subject)
            pair = [
                Taken(name=str(n), sha256="", params=str(n), fingerprint=c.fingerprint)
                for n, c in enumerate((check, twin))
            ]
            kinds = [*kinds, "duplicate"] if duplicates(pair) else kinds
    return Result(case=case, grade=check.grade, kinds=tuple(kinds), cpu_s=cpu_s)


def presets() -> list[str]:
    """Names of the shipped catalogue."""
    with MOTIONS.open(encoding="utf-8", newline="") as lines:
        return [row["name"] for row in csv.DictReader(lines)]


def run(cases: Sequence[Case], seed: int, jobs: int) -> list[Result]:
    """Every case in worker processes."""
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(judge, cases, [seed] * len(cases), chunksize=2))


def tables(title: str, results: Sequence[Result]) -> str:
    """Recall and false alarms by kind, then the presets on which something went wrong, as Markdown."""
    good = [result for result in results if result.case.kind == "good"]
    lines = [f"## {title}", "", f"{len(good)} good clips, {len(results) - len(good)} broken ones.", ""]
    lines += ["| kind | clear | medium | recall | false alarms on good clips |", "|---|---|---|---|---|"]
    for kind in KINDS:
        own = [result for result in results if result.case.kind == kind]
        clear, medium = ([r.is_hit for r in own if (r.case.severity > 0.5) is wanted] for wanted in (True, False))
        alarms = sum(kind in result.kinds for result in good)
        share = _share(sum(clear) + sum(medium), len(own))
        lines.append(f"| {kind} | {sum(clear)}/{len(clear)} | {sum(medium)}/{len(medium)} | {share} | {alarms} |")
    broken = [result for result in results if result.case.kind != "good"]
    bad, warned = (sum(result.grade is grade for result in good) for grade in (Grade.BAD, Grade.WARN))
    cpu = sorted(result.cpu_s for result in results)
    lines += [
        "",
        f"All kinds: {_share(sum(r.is_hit for r in broken), len(broken))}. "
        f"Good clips bad: {_share(bad, len(good))}; warned: {_share(warned, len(good))}. "
        f"CPU beyond decoding: mean {sum(cpu) / len(cpu):.2f} s, highest {cpu[-1]:.2f} s.",
        "",
        *_by_preset(results),
    ]
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole} = {part / max(1, whole):.3f}"


def _by_preset(results: Sequence[Result]) -> list[str]:
    lines = ["| preset | good | bad or warned | broken | found | what went wrong |", "|---|---|---|---|---|---|"]
    for preset in sorted({result.case.preset for result in results}):
        own = [result for result in results if result.case.preset == preset]
        good, broken = ([r for r in own if (r.case.kind == "good") is wanted] for wanted in (True, False))
        alarms = [r for r in good if r.grade is not Grade.OK]
        missed = [r.case.kind for r in broken if not r.is_hit]
        notes = [f"reported {kind}" for kind in sorted({kind for r in alarms for kind in r.kinds})]
        notes += [f"missed {kind}" + (f" x{count}" if count > 1 else "") for kind, count in Counter(missed).items()]
        found = len(broken) - len(missed)
        lines.append(f"| {preset} | {len(good)} | {len(alarms)} | {len(broken)} | {found} | {', '.join(notes)} |")
    return lines


def main() -> None:
    """Measure and print; keep the tables on request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checks")
    parser.add_argument("--quick", action="store_true", help="every fourth good clip, 4 broken ones of each kind")
    parser.add_argument("--good", type=int, default=GOOD, help="good clips of each preset")
    parser.add_argument("--each", type=int, default=EACH, help="broken clips of each kind")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write-docs", action="store_true", help="keep the tables in docs/internals/checks-figures.md")
    parser.add_argument(
        "--pictures", action="store_true", help="draw the pictures of docs/guides/checks.md, and nothing else"
    )
    args = parser.parse_args()
    if args.pictures:
        print("\n".join(map(str, draw_gallery(MOTIONS.parents[1] / "docs" / "pictures"))))
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("SVT_LOG", "0")
    parts = []
    for title, held_out in (("Set that the constants were set on", False), ("Held-out set", True)):
        names = presets()[::4] if args.quick else presets()
        good, each = (1, 4) if args.quick else (args.good, args.each)
        cases = make_cases(names, good=good, each=each, seed=args.seed + 1000 * held_out, held_out=held_out)
        parts.append(tables(title, run(cases, args.seed + 1000 * held_out, args.jobs)))
        print(parts[-1], flush=True)
    if args.write_docs:
        target = Path(__file__).resolve().parents[1] / "docs" / "internals" / "checks-figures.md"
        target.write_text("# Figures of the clip checks\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
