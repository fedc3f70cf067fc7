"""The worst that a machine, a shell or a spreadsheet does to a run that spends money."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Opened
from tests.acceptance.test_killed import check_books, check_videos
from tests.support.cli_driver import Dop, Ended, ended, shots, wait_for
from tests.support.fake_gateway import Json

Against = Callable[..., Opened]

LOST: Json = {"status": 500, "body": "", "book": True}


@pytest.mark.long
def test_a_reader_of_stderr_that_goes_away_changes_neither_the_run_nor_its_exit_code(against: Against) -> None:
    dop, double = against(prompts={"scene 2 ": LOST}, generation_s=0.3)
    manifest = dop.csv(shots(6))
    process = dop.start("run", manifest, "--yes", "--set", "pace.submit_concurrency=1")
    assert process.stderr is not None
    stream = process.stderr
    double.watch = lambda what, number: stream.close() if (what, number) == ("submit", 1) else None
    assert process.wait(timeout=60) == 3
    assert double.charged == 6
    assert sum(row["status"] == "done" for row in dop.rows()) == 5
    check_books(dop, double)


@pytest.mark.long
def test_closed_streams_are_not_the_ledgers_file(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(2))
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *dop.words("run", (manifest, "--yes"))]
    done = subprocess.run(command, cwd=dop.folder, env=dop.environment(), timeout=60, check=False)
    assert done.returncode == 0
    assert double.charged == 2
    assert dop.ledger("pragma integrity_check") == [("ok",)]
    check_books(dop, double)


@pytest.mark.long
@pytest.mark.parametrize("limit_kb", [130, 200, 260])
def test_a_disk_that_takes_no_more_loses_nothing_that_was_paid(against: Against, limit_kb: int) -> None:
    dop, double = against(generation_s=0.2)
    manifest = dop.csv(shots(40))

    command = ["bash", "-c", f'ulimit -f {limit_kb}; exec "$@"', "bash", *dop.words("run", (manifest, "--yes"))]
    done = subprocess.run(
        command, cwd=dop.folder, env=dop.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    full = Ended(code=done.returncode, out=done.stdout, err=done.stderr)
    assert full.code in (5, 7), full.err
    assert "Traceback" not in full.err
    assert "be written" in full.err
    end = dop.buy(manifest)
    unknown = end.counts.get("unknown", 0)
    assert end.code == (3 if unknown else 0), full.err + end.err
    assert unknown == 0 or full.code == 7
    assert end.counts.get("done", 0) + unknown == 40
    check_books(dop, double)
    check_videos(dop)


@pytest.mark.long
def test_an_outputs_folder_that_cannot_be_written_is_found_before_spending(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(1))
    (dop.folder / "a-file").write_text("in the way")
    for place in (dop.folder / "a-file", "/proc/nowhere", "/dev/null/x"):
        end = dop.call("run", manifest, "--yes", "--outputs", place)
        assert end.code == 2, end.err
        assert str(place) in end.err
    led = dop.folder / "ledger-is-a-folder"
    led.mkdir()
    end = dop.buy(manifest, "--set", f"ledger.path={led}")
    assert end.code in (2, 7)
    assert str(led) in end.err
    assert double.submits == []


STRANGE = [
    ("../../etc/passwd", "日本語のプロンプト 🎬"),
    ("=cmd|' /C calc'!A0", "@SUM(1+1)"),
    ("café ☕", "@sum"),
    ("CON", "-1"),
    ("-rf", "None"),
    ("a/b\\c", "nan"),
    ("A", "case"),
    ("a", "CASE"),
    ("l" * 200, "NO"),
    ("row\u200cgpj", "{{braces}} {% x %} ${HOME}".replace("{{braces}}", "{ braces }")),
    ('comma, "quoted"', "two\nlines"),
]


def test_strange_names_and_words_reach_the_gateway_and_never_the_file_system(against: Against) -> None:
    dop, double = against()
    manifest = dop.folder / "strange.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "prompt", "seed"])
        writer.writerows((name, "https://cdn.example.com/a.jpg", prompt, 5) for name, prompt in STRANGE)
    end = dop.buy(manifest)
    assert end.code == 0, end.err
    assert sorted(job.body["prompt"] for job in double.jobs.values()) == sorted(prompt for _, prompt in STRANGE)
    assert len(set(dop.videos())) == len(STRANGE)
    assert {video.parent for video in dop.videos()} == {dop.latest / "videos"}
    assert all(video.name.isascii() and not video.name.startswith("-") for video in dop.videos())
    for row in dop.rows():
        assert not row["row_id"].startswith(("=", "+", "-", "@"))
        assert not row["prompt"].startswith(("=", "+", "-", "@"))
    names = {path.name for path in dop.folder.parent.rglob("*")}
    assert "passwd" not in names


@pytest.mark.long
def test_a_long_sheet_is_bought_once_through_two_kills(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(1500))
    no_video = ("--no-download", "--set", "poll.max_s=2")
    for moment in ("after-accept:400", "before-accept:300"):
        assert dop.buy(manifest, *no_video, fail_point=moment, timeout_s=110).code == -signal.SIGKILL
    end = dop.buy(manifest, *no_video, timeout_s=110)
    unknown = end.counts.get("unknown", 0)
    assert end.counts.get("done", 0) + unknown == 1500
    assert unknown <= 2 * 16
    check_books(dop, double)


@pytest.mark.long
def test_rows_that_are_all_placeholders_are_nothing_to_do(rehearsal: Dop) -> None:
    manifest = rehearsal.csv("id,image,prompt,seed,skip\na,sandbox:cat,hello,1,true\n")
    end = rehearsal.buy(manifest)
    assert end.code == 0, end.err
    assert end.counts == {}
    assert [row["status"] for row in rehearsal.rows()] == ["skipped"]
    assert rehearsal.buy(manifest, "--error-on-nothing").code == 9


NONSENSE = [
    ("run", "--set", "nonsense"),
    ("run", "--set", "a.b=1"),
    ("run", "--set", "pace.rate=fast"),
    ("run", "--max-cost", "-1"),
    ("run", "--max-cost", "1e999999"),
    ("run", "--max-cost", "nan"),
    ("run", "--max-duration", "soon"),
    ("run", "-j", "0"),
    ("run", "--outpts", "x"),
    ("run", "--max-c", "1"),
    ("run", "--config", "nowhere.yaml"),
]


@pytest.mark.long
def test_nonsense_on_the_command_line_is_a_usage_error(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(1))
    for verb, *words in NONSENSE:
        end = dop.call(verb, manifest, "--yes", *words)
        assert end.code == 2, (words, end.err)
        assert "Traceback" not in end.err
    assert double.submits == []


@pytest.mark.long
def test_a_home_that_is_not_set_and_a_clock_far_off_are_survived(against: Against) -> None:
    dop, double = against()
    environ = dop.environment()
    del environ["HOME"]
    environ["TZ"] = "Pacific/Kiritimati"
    command = dop.words("run", (dop.csv(shots(1)), "--yes"))
    done = subprocess.run(command, cwd=dop.folder, env=environ, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert double.charged == 1
    assert all(row["submitted_at"].endswith("Z") for row in dop.rows())


@pytest.mark.long
def test_a_run_that_is_stopped_and_continued_by_the_shell_finishes(against: Against) -> None:
    dop, double = against(generation_s=0.2)
    process = dop.start("run", dop.csv(shots(20)), "--yes")
    double.watch = lambda what, number: (
        os.kill(process.pid, signal.SIGSTOP) if (what, number) == ("submit", 5) else None
    )
    wait_for(lambda: len(double.submits) >= 5)
    os.kill(process.pid, signal.SIGCONT)
    end = ended(process)
    assert end.code == 0, end.err
    assert double.charged == 20
