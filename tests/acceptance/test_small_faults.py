"""Small faults: huge frames, spreadsheet cells, absurd numbers, `nohup`, terminal controls, pictures elsewhere."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from PIL import Image

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, Here, ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Heard

Against = Callable[..., Opened]
ROOT = Path(__file__).resolve().parents[2]


# --- a clip of huge frames

SIDE_PX = 8_192
MAX_MB = 600
"""Of memory, for a run of one clip; one without any clip takes about 120."""


def huge_clip() -> bytes:
    """Four black frames of 8192 x 8192 in about 200 kB."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as box:
        stream = box.add_stream("libx264", rate=2, options={"preset": "ultrafast", "qp": "40"})
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame(SIDE_PX, SIDE_PX, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(4):
            frame.pts = number
            box.mux(stream.encode(frame))
        box.mux(stream.encode())
    return file.getvalue()


def peak_mb(process: subprocess.Popen[str]) -> int:
    """The most memory that a process had at once, watched until it ends; MB."""
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.M)
        if found:
            peak = max(peak, int(found[1]))
        time.sleep(0.01)
    return peak // 1024


@pytest.mark.long
def test_a_small_file_of_huge_frames_takes_little_memory(against: Against, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = huge_clip()
    assert len(clip) < 300_000
    monkeypatch.setattr("tests.support.fake_gateway.tiny_clip", lambda: clip)
    dop, double = against()
    process = dop.start("run", dop.csv(shots(1)), "--yes")
    peak = peak_mb(process)
    end = ended(process)
    assert end.code == 0, end.err
    assert double.charged == 1
    assert dop.videos()[0].read_bytes() == clip, "the video itself is kept"
    assert peak < MAX_MB


# --- cells for spreadsheets

FORMULA = re.compile(r"(^|[;,\t|\r\n])[ \u3000]*[=+\-@＝＋－＠]")


@pytest.mark.parametrize("prompt", ["a;=HYPERLINK(1)", "a;+1+1", "a; @SUM(1)", "a\t=1+1"])
def test_a_cell_that_a_spreadsheet_splits_holds_no_formula(against: Against, prompt: str) -> None:
    """Where the semicolon is the list separator, a cell `a;=F(1)` becomes two when the file is opened."""
    dop, double = against()
    manifest = dop.csv(f'id,image,prompt,seed\nx,https://cdn.example.com/1.jpg,"{prompt}",3\n')
    assert dop.buy(manifest).code == 0
    (row,) = dop.rows()
    assert not FORMULA.search(row["prompt"]), row["prompt"]
    assert double.submits[0]["body"]["prompt"] == prompt, "what is bought stays as written"


# --- numbers


@pytest.mark.parametrize("number", ["1000000000000", "1" + 30 * "0"])
def test_an_absurd_number_of_submits_at_once_is_refused(rehearsal: Dop, number: str) -> None:
    config = rehearsal.folder / "odd.yaml"
    defaults = "{model: dop-lite, motion: General, strength: 0.7, enhance_prompt: false}"
    config.write_text(f"pace: {{submit_concurrency: {number}}}\ndefaults: {defaults}\n")
    end = rehearsal.call("plan", rehearsal.csv(shots(1)), "--config", config)
    assert end.code == 2, end.out
    assert "pace.submit_concurrency" in end.err


# --- nohup


def test_nohup_keeps_a_run_alive_when_its_terminal_goes(against: Against) -> None:
    dop, double = against(generation_s=3600)
    words = ["nohup", *dop.words("run", (dop.csv(shots(2)), "--yes"))]
    process = subprocess.Popen(
        words,
        cwd=dop.folder,
        env=dop.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    dop.started.append(process)
    wait_for(lambda: len(double.polls) >= 2)
    process.send_signal(signal.SIGHUP)
    seen = len(double.polls)
    wait_for(lambda: len(double.polls) > seen + 2 or process.poll() is not None)
    double.script.generation_s = 0
    end = ended(process)
    assert end.code == 0, end.err
    assert end.counts == {"done": 2}


# --- terminal controls

CONTROLS = "\u0085\u009b31m\u009d0;x\u202e\u2066\u200f"


def test_show_json_prints_no_terminal_controls(against: Against) -> None:
    """They come in the raw text of answers, and, as far as a manifest may hold them, in a prompt."""
    said = f'{{"status": "failed", "error": "not {CONTROLS} good"}}'
    answer = {"body": said, "headers": {"Content-Type": "application/json"}}
    dop, _ = against(
        prompts={"lost": {"status": 500, **answer}, "bad": {"status": 422, **answer}},
        rows={"ends": {"polls_in_trouble": 99, "trouble": [{"status": 200, **answer}]}},
    )
    lines = [f"{word},https://cdn.example.com/1.jpg,it {word} \u202eat dawn,3" for word in ("lost", "bad", "ends")]
    manifest = dop.csv("\n".join(["id,image,prompt,seed", *lines, ""]))
    assert dop.buy(manifest).code == 3
    printed = [("show", word, "--json") for word in ("lost", "bad", "ends")]
    for verb, *words in (*printed, ("plan", manifest, "--json"), ("report", "--json"), ("show", "lost")):
        end = dop.call(str(verb), *words)
        raw = [f"U+{ord(sign):04X}" for sign in end.out + end.err if sign in CONTROLS and not sign.isascii()]
        assert raw == [], (verb, words)
    assert json.loads(dop.call("show", "lost", "--json").out)


def test_a_row_id_of_two_runs_is_shown_by_its_run(against: Against) -> None:
    dop, _ = against()
    for prompt in ("steam", "rain"):
        (dop.folder / f"{prompt}.csv").write_text(
            f"id,image,prompt,seed\ncup,https://cdn.example.com/1.jpg,{prompt},3\n", encoding="utf-8"
        )
        assert dop.buy(dop.folder / f"{prompt}.csv").code == 0
    both = dop.call("show", "cup")
    assert both.code == 2
    for prompt in ("steam", "rain"):
        run = next(dop.outputs.glob(f"*-{prompt}-*")).name
        assert run in both.err
        assert json.loads(dop.call("show", "cup", run, "--json").out)["prompt"] == prompt


# --- pictures of the machine


def pictures(folder: Path) -> Here:
    """A user who works in a folder beside which another picture lies."""
    Image.new("RGB", (64, 64)).save(folder / "secret.jpg")
    inside = folder / "inside"
    inside.mkdir()
    Image.new("RGB", (64, 64)).save(inside / "own.jpg")
    (inside / "link.jpg").symlink_to(folder / "secret.jpg")
    return Here(folder=inside)


@pytest.mark.parametrize("image", ["../secret.jpg", "{folder}/secret.jpg", "link.jpg", "./x/../../secret.jpg"])
@pytest.mark.parametrize("column", ["image", "end_image"])
def test_a_manifest_that_names_a_picture_outside_its_folder_is_refused(tmp_path: Path, image: str, column: str) -> None:
    dop = pictures(tmp_path)
    cells = {"image": "own.jpg", "end_image": "", column: image.format(folder=tmp_path)}
    manifest = dop.csv(
        f"id,image,end_image,prompt,seed,motion\nx,{cells['image']},{cells['end_image']},a lake,3,General\n"
    )
    for verb in ("validate", "plan", "run"):
        end = dop.call(verb, manifest)
        assert end.code == 2, (verb, end.out, end.err)
        assert "images.allow" in end.err, (verb, end.err)


def test_a_folder_that_is_allowed_may_be_named(tmp_path: Path) -> None:
    dop = pictures(tmp_path)
    manifest = dop.csv("id,image,prompt,seed\nx,../secret.jpg,a lake,3\n")
    end = dop.call("validate", manifest, "--set", f"images.allow={tmp_path}")
    assert end.code == 0, end.err
    own = dop.csv("id,image,prompt,seed\nx,own.jpg,a lake,3\n", "own.csv")
    assert dop.call("validate", own).code == 0


# --- builds


def test_what_the_build_needs_is_pinned() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert build["requires"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", one) for one in build["requires"]), build["requires"]


def test_the_double_sees_requests(against: Against) -> None:
    """The records that the tests above read are those of real requests."""
    dop, double = against()
    assert dop.buy(dop.csv(shots(1))).code == 0
    assert isinstance(double, GatewayDouble)
    assert all(isinstance(heard, Heard) for heard in double.polls)
