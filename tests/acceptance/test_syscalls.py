"""In the order of system calls: the intent is on the disk before the POST leaves, a video before it has its name."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cli_driver import KEY, Dop, shots
from tests.support.fake_gateway import GatewayDouble, Script

pytestmark = pytest.mark.xdist_group("one trace for all")

CALLS = "fsync,fdatasync,sendto,sendmsg,write,writev,pwrite64,rename,renameat,renameat2"
WAL_WRITE = re.compile(r"(pwrite64|write)\(\d+<[^>]*ledger\.db-wal>")
WAL_SYNC = re.compile(r"f(data)?sync\(\d+<[^>]*ledger\.db-wal>")
SENDS = r"(sendto|sendmsg|write|writev)\(\d+<[^>]*(socket|TCP)[^>]*>.*"
SUBMIT = re.compile(SENDS + r"POST /ai-model-api/v1/")
ANNOUNCED = re.compile(r"write\(\d+<[^>]*ledger\.db\.journal>.*event\W+reserve")
POLL = re.compile(SENDS + r"POST /ai-model-api-polling/")
PART_WRITE = re.compile(r"write\(\d+<[^>]*\.mp4\.part>")
PART_SYNC = re.compile(r"fsync\(\d+<[^>]*\.mp4\.part>")
RENAME = re.compile(r"rename(at2?)?\(.*\.mp4\.part\".*\.mp4\"")
FOLDER_SYNC = re.compile(r"fsync\(\d+<[^>]*/videos>")


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The system calls of one run of three rows, in order, each line once it had returned."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (apt-get install strace): the order of system calls is not shown")
    probe = subprocess.run([strace, "-f", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip().splitlines()[-1]}")
    folder = tmp_path_factory.mktemp("traced")
    with GatewayDouble(Script(key=KEY)) as double:
        dop = Dop(folder=folder, base_url=double.base_url)
        return trace(dop, strace, folder / "trace", dop.csv(shots(3)))


def trace(dop: Dop, strace: str, log: Path, manifest: Path) -> list[str]:
    words = dop.words("run", [manifest, "--yes", "--set", "pace.submit_concurrency=1"])
    command = [strace, "-f", "-y", "-s", "5000", "-e", f"trace={CALLS}", "-o", str(log), *words]
    end = subprocess.run(command, cwd=dop.folder, env=dop.environment(), capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
    return whole(log.read_text(errors="replace").splitlines())


def whole(lines: list[str]) -> list[str]:
    """Calls that were interrupted in the log, put together where they returned: only then they had happened."""
    begun: dict[str, str] = {}
    found = []
    for line in lines:
        process, _, call = line.partition(" ")
        if call.rstrip().endswith("<unfinished ...>"):
            if SUBMIT.search(call) or POLL.search(call):
                found.append(call)  # bytes may leave from the moment the call begins
            else:
                begun[process] = call.rsplit("<unfinished", 1)[0]
        elif "resumed>" in call and process in begun:
            found.append(begun.pop(process) + call.split("resumed>", 1)[1])
        else:
            found.append(call)
    return found


def places(lines: list[str], wanted: re.Pattern[str]) -> list[int]:
    return [number for number, line in enumerate(lines) if wanted.search(line)]


def last_before(places_of: list[int], number: int) -> int:
    return max((place for place in places_of if place < number), default=-1)


def unproven(lines: list[str]) -> str:
    """What is wrong with the order before some POST, or nothing: its intent is committed, synced and then passed to the
    journal, each since the POST before it. Other news of the ledger may be on its way meanwhile."""
    previous = -1
    for post in places(lines, SUBMIT):
        announced = last_before(places(lines, ANNOUNCED), post)
        if announced <= previous:
            return "no intent was recorded for this POST"
        synced = last_before(places(lines, WAL_SYNC), announced)
        if not previous < last_before(places(lines, WAL_WRITE), announced) < synced:
            return "the intent was written and not synced when the POST left"
        previous = post
    return ""


def test_nothing_of_the_ledger_is_unsynced_when_a_post_leaves(traced: list[str]) -> None:
    assert len(places(traced, SUBMIT)) == 3
    assert unproven(traced) == ""


def test_an_accepted_id_is_synced_before_its_first_poll_asks_for_its_video(traced: list[str]) -> None:
    writes, syncs, submits = places(traced, WAL_WRITE), places(traced, WAL_SYNC), places(traced, SUBMIT)
    first_poll = places(traced, POLL)[0]
    settled = [write for write in writes if submits[0] < write < first_poll]
    assert settled, "the answer was not recorded before the first poll"
    assert [sync for sync in syncs if settled[0] < sync < first_poll]


def test_a_video_is_synced_then_named_then_its_folder_is_synced(traced: list[str]) -> None:
    renames = places(traced, RENAME)
    assert len(renames) == 3
    for rename in renames:
        written = last_before(places(traced, PART_WRITE), rename)
        assert last_before(places(traced, PART_SYNC), rename) > written >= 0
        assert [place for place in places(traced, FOLDER_SYNC) if place > rename]


INTENT, SYNC = "pwrite64(5</a/ledger.db-wal>, 1)", "fdatasync(5</a/ledger.db-wal>)"
POST = 'sendto(9<TCP:[1]>, "POST /ai-model-api/v1/x")'
RECORDED = r'write(6</a/ledger.db.journal>, "0266b726 {\"seq\":3,\"event\":\"reserve\"}")'


def test_a_call_that_the_log_shows_in_two_pieces_counts_once() -> None:
    pieces = [f"7 {POST} <unfinished ...>", f"8 {SYNC[:-1]} <unfinished ...>", "8 <... fdatasync resumed>) = 0"]
    found = whole([*pieces, "7 <... sendto resumed>) = 90"])
    assert (len(places(found, SUBMIT)), places(found, WAL_SYNC)) == (1, [1])


@pytest.mark.parametrize(
    "order",
    [
        [INTENT, POST, SYNC, RECORDED],
        [POST, INTENT, SYNC, RECORDED],
        [INTENT, RECORDED, POST, SYNC],
        [INTENT, SYNC, RECORDED, POST, POST],
        [INTENT, SYNC, RECORDED, POST, RECORDED, POST],
    ],
)
def test_a_post_that_leaves_too_early_would_be_noticed(order: list[str]) -> None:
    assert unproven(order)


def test_news_of_another_request_may_be_on_its_way_while_a_post_leaves() -> None:
    assert unproven([INTENT, SYNC, RECORDED, INTENT, POST]) == ""
