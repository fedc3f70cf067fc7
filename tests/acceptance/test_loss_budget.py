"""A stated budget of what may be lost, exits that say everything, and advice that never costs money."""

from __future__ import annotations

import io
import json
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import KEY, Dop, Here, ended, killed, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Heard, Json, Script, tiny_clip
from tests.support.surroundings import Capitals, beside, care, hooked, ledger_files, stranger

Against = Callable[..., Opened]
ONE = ("--set", "pace.submit_concurrency=1")
LOST: Json = {"status": 502, "body": "<html>Bad Gateway</html>", "book": True}


def bought(against: Against, rows: int = 3) -> Opened:
    """A user who has bought so many rows."""
    dop, double = against()
    end = dop.buy(dop.csv(shots(rows)))
    assert end.code == 0, end.err
    return dop, double


# --- a damaged journal


def journal_of(dop: Dop) -> Path:
    """The ledger's journal, however the side files are named."""
    (journal,) = dop.outputs.glob("ledger*.journal")
    return journal


def without_ledger(dop: Dop) -> None:
    """Removes the database, not its journal."""
    for file in dop.outputs.glob("ledger.db*"):
        if file.suffix in (".db", ".db-wal", ".db-shm"):
            file.unlink()


def damage(dop: Dop, how: str, row: str = "row-2") -> None:
    """Spoils the journal's lines about one row, or takes them out."""
    (request,) = [line["request_id"] for line in dop.rows() if line["row_id"] == row]
    journal = journal_of(dop)
    lines = journal.read_bytes().splitlines(keepends=True)
    hit = [number for number, line in enumerate(lines) if request.encode() in line]
    assert hit
    for number in hit:
        lines[number] = b"x" + lines[number][1:] if how == "spoiled" else b""
    journal.write_bytes(b"".join(lines))


BAD_ADVICE = re.compile(r"(move|remove|delete|rename)\b[^.;\n]*journal|journal[^.;\n]*\b(away|aside)\b", re.I)
DAMAGES = pytest.mark.parametrize("how", ["spoiled", "missing"])


@DAMAGES
def test_check_sees_a_hole_in_the_journal_and_gives_no_advice_that_costs_money(against: Against, how: str) -> None:
    dop, double = bought(against, 6)
    damage(dop, how)
    for _ in range(2):
        end = care(dop, "check")
        assert end.code == 7, end.out
        assert "is whole" not in end.out
        assert not BAD_ADVICE.search(end.out + end.err), end.out
        without_ledger(dop)
    assert double.charged == 6


@DAMAGES
def test_a_lost_ledger_beside_a_damaged_journal_refuses_and_names_what_may_be_bought(
    against: Against, how: str
) -> None:
    dop, double = bought(against, 6)
    damage(dop, how)
    without_ledger(dop)
    end = dop.buy(dop.csv(shots(6)))
    assert len(double.submits) == 6, end.err
    assert end.code == 7, end.err
    assert not BAD_ADVICE.search(end.err)
    said = end.err + care(dop, "check").out
    assert "may be bought" in said or "perhaps bought" in said or "bought already" in said, said
    assert "dop resolve" in said, said


@DAMAGES
def test_an_older_backup_beside_a_damaged_journal_refuses(against: Against, how: str) -> None:
    dop, double = bought(against, 2)
    backup = dop.folder / "backup.db"
    assert care(dop, "copy", str(backup)).code == 0
    assert dop.buy(dop.csv(shots(6))).code == 0
    damage(dop, how, "row-4")
    shutil.copyfile(backup, dop.outputs / "ledger.db")
    for manifest in (dop.csv(shots(6)), dop.csv(shots(8))):
        end = dop.buy(manifest)
        assert end.code == 7, end.err
        assert not BAD_ADVICE.search(end.err), end.err
        assert "dop ledger" in end.err
    check = care(dop, "check")
    assert check.code == 7, check.out
    assert not BAD_ADVICE.search(check.out + check.err), check.out
    assert len(double.submits) == 6


# --- ids in another spelling


def test_a_job_whose_id_comes_back_in_capitals_is_finished(tmp_path: Path) -> None:
    with Capitals(Script(key=KEY)) as double:
        dop = Here(folder=tmp_path, base_url=double.base_url)
        end = dop.buy(dop.csv(shots(3)), "--max-duration", "1s")
        assert end.code == 0, end.err
        assert end.counts == {"done": 3}
        assert double.charged == 3


class Confused(GatewayDouble):
    """Every poll is answered with the state of a job that is none of ours."""

    def _state(self, job: Any) -> Json:
        return {**super()._state(job), "job_set_id": "00000000-0000-4000-8000-000000000000"}


def test_polls_that_never_make_sense_end_in_words(tmp_path: Path) -> None:
    with Confused(Script(key=KEY)) as double:
        dop = Here(folder=tmp_path, base_url=double.base_url)
        end = dop.buy(dop.csv(shots(2)), "--max-duration", "1s")
        assert end.code == 5, end.err
        assert re.search(r"(another|other|wrong|different) job", end.err), end.err


# --- the loss budget

ENOUGH = ("--max-duration", "3s")
"""Ends a run that pauses instead of stopping."""


def lossy(against: Against, lost: str = "*") -> Opened:
    """A gateway that charges these submits and answers them with 502."""
    return against(submits={lost: LOST})


@pytest.mark.parametrize("words", [("--max-unknown", "2"), ("--set", "on_unknown.max=2")])
def test_at_max_unknown_the_buying_stops_and_everything_is_collected(against: Against, words: tuple[str, ...]) -> None:
    dop, double = against(submits={"3": LOST, "6": LOST}, generation_s=0.2)
    end = dop.buy(dop.csv(shots(40)), *ONE, *words)
    assert end.code == 3, end.err
    assert len(double.submits) == 6, "nothing is bought after the second unknown outcome"
    assert end.counts == {"done": 4, "unknown": 2, "planned": 34}
    assert all(path.read_bytes() == tiny_clip() for path in dop.videos())
    again = dop.buy(dop.csv(shots(40)), *ONE, *words)
    assert again.code == 3, again.err
    assert len(double.submits) == 6, "the budget counts over all restarts"


def test_at_max_unknown_one_block_says_everything(against: Against) -> None:
    dop, _ = against(submits={"2": LOST, "4": {"reset": "after", "book": True}})
    end = dop.buy(dop.csv(shots(40)), *ONE, "--max-unknown", "2")
    assert end.code == 3, end.err
    lines = end.err.splitlines()
    named = [number for number, line in enumerate(lines) if "--max-unknown" in line]
    assert named, end.err
    block = "\n".join(lines[max(0, named[0] - 8) : named[-1] + 9])
    assert re.search(r"\b2\b[^\n]*unknown|unknown[^\n]*\b2\b", block), block
    assert "502" in block, "which faults"
    assert "$0.270" in block, "how much may be lost"
    assert re.search(r"\b36\b", block), "how many rows are left to buy"
    assert "dop resolve" in block, "how to settle them"
    assert "run the same command again" not in end.err, "it would buy nothing"
    assert "--max-unknown" in lines[-1]


@pytest.mark.long
def test_by_default_the_loss_is_bounded_over_all_restarts(against: Against) -> None:
    """The first of max(5 rows, 2 % of the batch) and 5 % of max_cost."""
    dop, double = lossy(against)
    manifest = dop.csv(shots(40))
    for _ in range(2):
        end = dop.buy(manifest, *ONE, *ENOUGH)
        assert end.code == 3, end.err
    assert double.charged <= 5


def test_by_default_at_most_a_twentieth_of_max_cost_may_be_lost(against: Against) -> None:
    dop, double = lossy(against)
    end = dop.buy(dop.csv(shots(40)), *ONE, *ENOUGH, "--max-cost", "5.40")
    assert end.code == 3, end.err
    assert double.charged == 2, "5 % of $5.40 are two videos"
    assert "--max-unknown" in end.err, end.err


def test_what_is_proved_later_is_given_back(against: Against) -> None:
    dop, double = against(submits={"1-2": LOST})
    manifest = dop.csv(shots(5))
    words = (*ONE, "--max-unknown", "2")
    assert dop.buy(manifest, *words).code == 3
    assert len(double.submits) == 2
    for row, job in zip(("row-1", "row-2"), double.jobs, strict=True):
        assert dop.call("resolve", row, "--adopt", job).code == 0
    end = dop.buy(manifest, *words)
    assert end.code == 0, end.err
    assert double.charged == 5


def test_max_unknown_may_be_money(against: Against) -> None:
    dop, double = lossy(against)
    manifest = dop.csv(shots(9))
    tried = [dop.buy(manifest, *ONE, *ENOUGH, "--max-unknown", "0.27")]
    if tried[0].code == 2:
        tried.append(dop.buy(manifest, *ONE, *ENOUGH, "--max-unknown", "$0.27"))
    end = tried[-1]
    assert end.code == 3, end.err
    assert double.charged == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "cause"),
    [(LOST, "(gateway answers 502"), ({"reset": "after", "book": True}, "(the connection broke: Connection reset")],
)
def test_a_pause_is_said_with_its_cause(against: Against, fault: dict[str, Any], cause: str) -> None:
    """Allowed to go on, a run pauses for an outage: said once, with the time of its end, and in the progress line."""
    dop, double = against(submits={"*": fault})
    end = dop.buy(dop.csv(shots(40)), *ONE, "--max-duration", "4s", "--max-unknown", "30")
    assert end.code == 3, end.err
    assert double.charged <= 5
    paused = re.findall(r"paused until \d\d:\d\d[^\n]*", end.err)
    assert paused, end.err
    assert all(cause in line for line in paused), paused


# --- exits that hide nothing


def facts(dop: Dop) -> list[dict[str, Any]]:
    """What run.json and `dop status --json` say of the newest run."""
    status: dict[str, Any] = json.loads(dop.call("status", "--json").out)
    return [json.loads((dop.latest / "run.json").read_text()), status]


def test_exit_3_says_that_the_budget_is_reached(against: Against) -> None:
    dop, double = against(submits={"2": LOST})
    end = dop.buy(dop.csv(shots(45)), "--max-cost", "5.50")  # a twentieth of it are two videos
    assert end.code == 3, end.err
    assert double.charged == 40
    for found in facts(dop):
        assert found["budget_reached"], found
        assert found["unfinished"], found
        assert not found["stopped_by"], found
    last = end.err.strip().splitlines()[-1]
    assert "unknown" in last, last
    assert "budget" in last, last


@pytest.mark.long
def test_exit_3_says_that_the_run_is_unfinished(against: Against) -> None:
    dop, double = against(submits={"2": LOST}, generation_s=3600)
    end = dop.buy(dop.csv(shots(6)), *ONE, *ENOUGH)
    assert end.code == 3, end.err
    assert double.charged == 6
    for found in facts(dop):
        assert found["unfinished"], found
        assert not found["budget_reached"], found
    last = end.err.strip().splitlines()[-1]
    assert "unfinished" in last or "run again" in last, last


def test_exit_3_says_which_signal_stopped_the_run(against: Against) -> None:
    dop, double = against(submits={"1": LOST}, generation_s=3600)
    process = dop.start("run", dop.csv(shots(3)), "--yes", *ONE)
    wait_for(lambda: len(double.polls) > 2)
    process.send_signal(signal.SIGTERM)
    end = ended(process)
    assert end.code == 3, end.err
    for found in facts(dop):
        assert re.search(r"TERM|143", str(found["stopped_by"])), found
        assert found["unfinished"], found
    assert "TERM" in end.err.strip().splitlines()[-1], end.err


def test_a_run_that_ends_well_says_so_as_well(against: Against) -> None:
    dop, _ = bought(against, 2)
    for found in facts(dop):
        assert not found["unfinished"]
        assert not found["budget_reached"]
        assert not found["stopped_by"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_poll_that_is_refused_twice_and_then_answered_ends_well(against: Against, status: int) -> None:
    trouble = [{"status": status, "body": {"error": "Access denied"}}]
    dop, double = against(jobs={"1": {"polls_in_trouble": 2, "trouble": trouble}})
    end = dop.buy(dop.csv(shots(2)), "--max-duration", "30s")
    assert end.code == 0, end.err
    assert end.counts == {"done": 2}
    assert double.charged == 2


# --- videos


@pytest.mark.parametrize("how", ["vanished", "emptied", "cut"])
def test_a_video_that_is_gone_is_noticed_and_fetched_again(against: Against, how: str) -> None:
    dop, double = bought(against, 3)
    manifest = dop.folder / "shots.csv"
    video = sorted(dop.videos())[0]
    if how == "vanished":
        video.unlink()
    else:
        video.write_bytes(b"" if how == "emptied" else video.read_bytes()[:2_000])
    end = dop.buy(manifest)
    assert double.charged == 3
    whole = video.exists() and video.read_bytes() == tiny_clip()
    assert whole or "row-" in end.err + end.out, f"nothing was said about {video.name}: {end.err}"
    if not whole:
        end = dop.call("collect")
        assert video.read_bytes() == tiny_clip(), end.err


def sound_only() -> bytes:
    """An MP4 of one second of sound and no picture track."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as box:
        stream = box.add_stream("aac", rate=44_100)
        for number in range(43):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1_024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44_100, number * 1_024
            box.mux(stream.encode(frame))
        box.mux(stream.encode())
    return file.getvalue()


class Mute(GatewayDouble):
    """The first video that is fetched has no picture track."""

    async def _download(self, heard: Heard, path: str, writer: Any) -> None:
        from tests.support import fake_gateway

        first = next(iter(self.jobs))
        content = sound_only() if first in path else tiny_clip()
        self.downloads.append(heard)
        await fake_gateway._send(writer, 200, content, {"Content-Type": "video/mp4"})


@pytest.mark.parametrize("name", ["sheet.png", "grid.mp4", "sheet.html"])
def test_a_clip_without_a_picture_track_does_not_end_the_sheet(tmp_path: Path, name: str) -> None:
    with Mute(Script(key=KEY)) as double:
        dop = Here(folder=tmp_path, base_url=double.base_url)
        end = dop.buy(dop.csv(shots(3)), *ONE)
        assert end.code in (0, 1), end.err
        target = tmp_path / name
        end = dop.call("report", "-o", target)
        assert end.code == 0, end.err
        assert target.stat().st_size > 500


# --- what is left when the ledger is gone


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("LOCALHOST.", marks=pytest.mark.long)])
def test_run_json_without_a_ledger_refuses_to_buy(against: Against, host: str) -> None:
    """Nothing but the outputs folder can know: the home is another one. A gateway may be in it under an older name."""
    dop, double = bought(against, 3)
    summary = dop.latest / "run.json"
    summary.write_text(summary.read_text().replace("127.0.0.1", host))
    for file in ledger_files(dop):
        file.unlink()
    dop.environ["HOME"] = str(dop.folder / "another-home")
    end = dop.buy(dop.folder / "shots.csv")
    assert len(double.submits) == 3, end.err
    assert end.code in (2, 7), end.err
    assert "run.json" in end.err or str(dop.latest) in end.err or dop.latest.name in end.err, end.err


@pytest.mark.long
def test_a_full_table_of_file_handles_is_not_called_a_full_disk(tmp_path: Path) -> None:
    """From a number of handles at which nothing starts, to one at which all goes well."""
    said = []
    for handles in range(14, 20):
        with GatewayDouble(Script(key=KEY)) as double:
            folder = tmp_path / str(handles)
            folder.mkdir()
            dop = Dop(folder=folder, base_url=double.base_url)
            done = subprocess.run(
                dop.words("run", (dop.csv(shots(4)), "--yes", "--max-duration", "3s")),
                cwd=dop.folder,
                env=dop.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (handles, handles)),
            )
        said.append(done.stderr)
        assert "Traceback" not in done.stderr
    assert any("files" in text or "handles" in text for text in said), "no limit was reached"
    wrong = [line for text in said for line in text.splitlines() if re.search(r"free (some|disk)|space", line)]
    assert wrong == []


# --- what a killed run leaves


@pytest.mark.parametrize("name", ["report.csv", "report.html", "run.json", "latest", ".jpg"])
def test_temporary_files_of_a_killed_run_are_removed_by_the_next(against: Against, name: str) -> None:
    dop, double = against()
    manifest = dop.csv(shots(2))
    first = hooked(dop, TEST_DIE_AT_RENAME_TO=name).buy(manifest)
    assert killed(first), first.err
    left = {path.relative_to(dop.outputs) for path in dop.outputs.rglob("*") if is_temporary(path)}
    assert left, "the kill came before the rename"
    end = dop.buy(manifest)
    assert end.code == 0, end.err
    assert double.charged == 2
    assert [path for path in dop.outputs.rglob("*") if is_temporary(path)] == []


def is_temporary(path: Path) -> bool:
    """Whether this is the name of a draft: hidden, or marked as a part."""
    return path.name.startswith(".") or ".part" in path.name or path.suffix in (".tmp", ".new", ".rebuilding")


def test_the_hooks_and_doubles_of_this_file_do_what_they_say(tmp_path: Path) -> None:
    with av.open(io.BytesIO(sound_only())) as box:
        assert [stream.type for stream in box.streams] == ["audio"]
    assert Decimal("5.40") * 5 / 100 / Decimal("0.135") == 2
    assert beside(Here(folder=tmp_path), "a").environment()["HOME"] == str(tmp_path / "home")
    assert stranger(Here(folder=tmp_path), "b").environment()["HOME"] == str(tmp_path / "b" / "home")
