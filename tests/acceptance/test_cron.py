"""The page of cron: each line is run as cron, systemd or CI would run it, against a gateway with books."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import DOP, KEY, Dop, shots
from tests.support.fake_gateway import GatewayDouble

REPO = Path(__file__).resolve().parents[2]
DOCUMENT = (REPO / "docs" / "guides" / "cron.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The document's blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, flags=re.S | re.M)


def cron_commands() -> list[str]:
    """The command of each line, after its five fields."""
    return re.findall(r"^(?:\S+ ){5} *(\S.*)$", blocks("crontab")[0], flags=re.M)


@pytest.fixture
def film(against: Callable[..., Opened]) -> Callable[..., tuple[Dop, GatewayDouble]]:
    """A folder as the document prepares it: a sheet, the configurations, and the key in its file."""

    def make(**script: object) -> tuple[Dop, GatewayDouble]:
        dop, gateway = against(**script)
        dop.csv(shots(3))
        subprocess.run([DOP, "init"], cwd=dop.folder, capture_output=True, check=True, timeout=60)
        key_file = dop.folder / "home" / ".pixazo" / "api-key"
        key_file.parent.mkdir(parents=True)
        key_file.write_text(f"{KEY}\n")
        key_file.chmod(0o600)
        return dop, gateway

    return make


def as_cron(dop: Dop, command: str) -> subprocess.CompletedProcess[str]:
    """The command in /bin/sh with cron's bare environment; the document's places are this test's."""
    adapted = command.replace("/opt/dop-batch/.venv/bin/dop", str(DOP)).replace("/srv/film", str(dop.folder))
    environ = {"HOME": str(dop.folder / "home"), "LOGNAME": "film", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    quick = {f"DOP_POLL__{name}": "0.05" for name in ("FIRST_S", "MIN_S", "MAX_S")}
    gateway = {"DOP_GATEWAY__BASE_URL": str(dop.base_url)}
    kept = {name: value for name, value in dop.environment().items() if name == "PYTHONPATH"}
    return subprocess.run(
        ["/bin/sh", "-c", adapted],
        cwd="/",
        env=environ | quick | gateway | kept,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """The exit code and everything that cron would mail."""
    return done.returncode, done.stdout + done.stderr


@pytest.mark.long
def test_the_crontab_buys_once_and_is_silent(film: Callable[..., tuple[Dop, GatewayDouble]]) -> None:
    dop, gateway = film()
    nightly, weekly = cron_commands()
    assert not re.search(r"(?<!\\)%", nightly + weekly), "cron makes a line break of it"
    for _night in range(2):
        assert said(as_cron(dop, nightly)) == (0, "")
        assert gateway.charged == 3
    pruned = as_cron(dop, weekly)
    assert pruned.returncode == 0, pruned.stderr


@pytest.mark.long
def test_the_crontab_mails_what_went_wrong(film: Callable[..., tuple[Dop, GatewayDouble]]) -> None:
    dop, _ = film(submits={"2": {"status": 502}})
    code, mail = said(as_cron(dop, cron_commands()[0]))
    assert code == 3
    assert "row-2: outcome unknown" in mail
    assert "1 outcomes are unknown" in mail or "1 outcome is unknown" in mail


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ({}, 0, ""),
        ({"jobs": {"1": {"end": "failed", "reason": "no luck"}}}, 1, "see outputs/latest/failures.csv"),
        ({"submits": {"1": {"status": 500}}}, 3, "unknown: row-1"),
        ({"submits": {"1": {"status": 401}}}, 7, "refuses further submits: 401"),
    ],
)
def test_the_script_tells_the_endings_apart(
    film: Callable[..., tuple[Dop, GatewayDouble]], script: dict[str, object], code: int, words: str
) -> None:
    dop, _ = film(**script)
    text = next(block for block in blocks("sh") if block.startswith("#!"))
    done = as_cron(dop, text)
    assert done.returncode == code, said(done)
    assert words in done.stdout + done.stderr
    if code == 0:
        assert said(as_cron(dop, text)) == (0, ""), "nothing new is no trouble"


def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    service, timer = blocks("ini")
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here: apt-get install systemd")
    for ending, text in (("service", service), ("timer", timer)):
        adapted = text.replace("/opt/dop-batch/.venv/bin/dop", str(DOP)).replace("/srv/film", str(tmp_path))
        (tmp_path / f"dop-nightly.{ending}").write_text(adapted.replace("User=film", "User=root"))
    units = [str(tmp_path / f"dop-nightly.{ending}") for ending in ("service", "timer")]
    done = subprocess.run(
        [analyze, "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    assert said(done) == (0, "")
    calendar = re.findall(r"^OnCalendar=(.*)$", timer, flags=re.M)[0]
    subprocess.run([analyze, "calendar", calendar], capture_output=True, timeout=60, check=True)


@pytest.mark.long
def test_the_command_of_the_unit_runs(film: Callable[..., tuple[Dop, GatewayDouble]]) -> None:
    dop, gateway = film()
    command = re.findall(r"^ExecStart=(.*)$", blocks("ini")[0], flags=re.M)[0]
    assert said(as_cron(dop, f"cd /srv/film && {command}")) == (0, "")
    assert gateway.charged == 3


@pytest.mark.long
def test_the_price_of_a_change_is_shown_in_ci_without_a_key(film: Callable[..., tuple[Dop, GatewayDouble]]) -> None:
    dop, gateway = film()
    (dop.folder / "home" / ".pixazo" / "api-key").unlink()
    steps = yaml.safe_load(blocks("yaml")[0])["jobs"]["price"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("dop ")]
    assert len(commands) == 2
    summary = dop.folder / "summary.md"
    for command in commands:
        adapted = command.replace("dop ", f"{DOP} ", 1).replace("$GITHUB_STEP_SUMMARY", str(summary))
        done = as_cron(dop, f"cd /srv/film && {adapted}")
        assert done.returncode == 0, done.stderr
    assert "3 videos, $0.405" in summary.read_text()
    assert gateway.charged == 0


@pytest.mark.long
def test_ci_keeps_the_report_and_the_exit_code(film: Callable[..., tuple[Dop, GatewayDouble]]) -> None:
    dop, _ = film(jobs={"1": {"end": "failed", "reason": "no luck"}})
    text = blocks("sh")[-1].replace("\ndop ", f"\n{DOP} ").replace("dop run", f"{DOP} run", 1)
    done = as_cron(dop, f"cd /srv/film\n{text}")
    assert done.returncode == 1, done.stderr
    assert 'failures="1"' in (dop.folder / "shots.junit.xml").read_text()


@pytest.mark.long
def test_no_progress_is_printed_between_json_lines(against: Callable[..., Opened]) -> None:
    dop, _ = against(generation_s=0.0)
    end = dop.buy(dop.csv(shots(1)), "--log-json")
    assert end.code == 0
    log = [json.loads(line) for line in end.err.splitlines()]
    assert {line["event"] for line in log} >= {"submit"}
    assert log[-1]["event"] == "end"
    assert log[-1]["summary"].startswith("done=1 ")
