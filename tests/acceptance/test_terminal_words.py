"""What a user at the terminal reads: first and last lines, help, suggestions, budgets, and output devices that fail."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import DOP, Dop, shots

Against = Callable[..., Opened]
SANDBOX = "sandbox: no money spent"


# the first and the last line ------------------------------------------------------------------------------------------


def test_a_rehearsal_says_so_in_its_first_and_its_last_line(rehearsal: Dop) -> None:
    lines = rehearsal.buy(rehearsal.csv(shots(2))).err.splitlines()
    assert lines[0] == f"Gateway {SANDBOX}. shots.csv: 2 videos to buy for $0.270."
    assert lines[-1].endswith(f" - {SANDBOX}")
    assert re.fullmatch(r"Done: 2 videos ready, 2 new for \$0\.270 in \d+ s\.", lines[-3])
    assert re.fullmatch(r"  sheet  out/\S+/report\.html", lines[-2])


def test_a_live_gateway_says_that_money_is_real(against: Against) -> None:
    dop, _ = against()
    for verb, words in (("submit", (dop.csv(shots(1)), "--yes")), ("collect", ())):
        lines = dop.call(verb, *words).err.splitlines()
        assert lines[0].startswith(f"Gateway {dop.base_url}: real money. ")
        assert lines[-1].endswith(f" - {dop.base_url}: real money")


@pytest.mark.long
def test_json_of_a_run_is_one_object_on_stdout(rehearsal: Dop) -> None:
    manifest = rehearsal.csv(shots(2))
    first = json.loads(rehearsal.buy(manifest, "--json").out)
    assert (first["done"], first["new_videos"], first["exit_code"], first["real_money"]) == (2, 2, 0, False)
    assert Path(first["folder"]) == rehearsal.latest
    again = rehearsal.buy(manifest, "--json", "-q")
    second = json.loads(again.out)
    assert (second["run"], second["nothing_to_buy"], second["made_in"], again.err) == (None, True, [first["run"]], "")


@pytest.mark.long
def test_the_line_of_pairs_is_in_the_log_alone(rehearsal: Dop) -> None:
    end = rehearsal.buy(rehearsal.csv(shots(1)))
    assert "done=" not in end.err + end.out
    assert end.counts == {"done": 1}


# failures -------------------------------------------------------------------------------------------------------------


def test_a_failed_row_makes_exit_1_once_and_is_named_until_it_is_dismissed(against: Against) -> None:
    dop, _ = against(jobs={"2": {"end": "failed", "reason": "no luck"}})
    manifest = dop.csv(shots(2))
    first = dop.buy(manifest)
    assert first.code == 1
    assert "1 failed: row-2" in first.err
    again = dop.buy(manifest)
    assert again.code == 0
    assert "1 failed earlier: row-2" in again.err
    assert "row-2" in dop.call("status").out
    assert dop.call("dismiss", "row-2").code == 0
    assert "failed earlier" not in dop.buy(manifest).err
    assert "row-2" not in dop.call("status").out
    assert dop.call("dismiss", "row-1").code == 2


def test_the_retry_that_is_named_buys_every_failed_row(against: Against) -> None:
    dop, double = against(jobs={"1": {"end": "failed"}, "2": {"end": "nsfw"}})
    end = dop.buy(dop.csv(shots(2)))
    command = f"`dop retry {end.run} --failed --refused`"
    assert command in end.err
    assert command in dop.call("status").out
    assert dop.call("retry", end.run, "--failed", "--refused", "--yes").code == 0
    assert double.charged == 4


def test_all_failed_rows_of_a_run_are_dismissed_at_once(against: Against) -> None:
    dop, _ = against(jobs={str(n): {"end": "failed"} for n in (1, 2)})
    dop.buy(dop.csv(shots(3)))
    assert dop.call("dismiss", "--all").out.startswith("2 failed rows dismissed: ")
    assert dop.call("dismiss", "--all").out == "0 failed rows dismissed\n"


# help and suggestions -------------------------------------------------------------------------------------------------


def test_the_help_groups_the_commands_and_lists_the_exit_codes(rehearsal: Dop) -> None:
    text = rehearsal.typed("--help").out
    groups = re.findall(r"^(\w[\w ]*):$", text, flags=re.M)
    assert groups[:3] == ["Start", "Plan and buy", "Look and choose"]
    codes = re.findall(r"^ +([\d ]+\d)  \w", text.partition("exit codes")[2], flags=re.M)
    assert " ".join(codes).split() == ["2", "11", "7", "3", "8", "129", "130", "143", "5", "1", "9", "0"]
    assert max(map(len, text.splitlines())) <= 100


def test_help_of_a_verb_is_its_help(rehearsal: Dop) -> None:
    assert rehearsal.typed("help", "run").out == rehearsal.typed("run", "--help").out
    assert rehearsal.typed("help", "ledger", "check").out == rehearsal.typed("ledger", "check", "--help").out
    assert rehearsal.typed("help").out == rehearsal.typed("--help").out
    assert "10%%" not in rehearsal.typed("help", "run").out


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (("buy", "shots.csv"), "did you mean run?"),
        (("colect",), "did you mean collect?"),
        (("plan", "x.csv", "--max-costs", "5"), "did you mean --max-cost?"),
        (("run", "x.csv", "--dryrun"), "did you mean --dry-run?"),
        (("ledger", "chek"), "did you mean check?"),
        (("ledger", "check", "--output", "x"), "did you mean --outputs?"),
        (("key", "store"), "did you mean set?"),
        (("help", "colect"), "did you mean collect?"),
    ],
)
def test_a_word_that_is_unknown_gets_a_guess_at_every_level(rehearsal: Dop, words: tuple[str, ...], guess: str) -> None:
    end = rehearsal.typed(*words)
    assert (end.code, end.out) == (2, "")
    assert guess in end.err


def test_fish_gets_completions_of_verbs_flags_and_files(rehearsal: Dop) -> None:
    script = rehearsal.typed("completion", "fish").out
    assert "complete -c dop -n __fish_use_subcommand -a run " in script
    assert "complete -c dop -n '__fish_seen_subcommand_from run' -l max-cost -x -d " in script
    assert "complete -c dop -n '__fish_seen_subcommand_from run' -F" in script
    assert "complete -c dop -n '__fish_seen_subcommand_from ledger' -a rebuild " in script


# configuration --------------------------------------------------------------------------------------------------------


def test_a_dop_yaml_in_the_folder_and_a_named_file_are_the_configuration(rehearsal: Dop) -> None:
    (rehearsal.folder / "dop.yaml").write_text("prices: {dop-lite: 1.000}\n", encoding="utf-8")
    other = rehearsal.folder / "other.yaml"
    other.write_text("prices: {dop-lite: 2.000}\n", encoding="utf-8")
    manifest = str(rehearsal.csv(shots(1, model="dop-lite", motion="General", strength=0.5, enhance_prompt="false")))
    assert "$1.000" in rehearsal.typed("plan", manifest).out
    rehearsal.environ["DOP_CONFIG"] = "other.yaml"
    assert "$2.000" in rehearsal.typed("plan", manifest).out
    rehearsal.environ["DOP_CONFIG"] = "nowhere.yaml"
    end = rehearsal.typed("plan", manifest)
    assert (end.code, end.err) == (2, "dop: DOP_CONFIG=nowhere.yaml: there is no such file\n")


def test_a_variable_that_lacks_an_underscore_gets_a_guess(rehearsal: Dop) -> None:
    rehearsal.environ["DOP_GATEWAY_BASE_URL"] = "https://gateway.example.com"
    assert "Did you mean DOP_GATEWAY__BASE_URL?" in rehearsal.call("list").err


# the plan -------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_plan_shows_what_is_used_of_each_budget_and_what_fits(rehearsal: Dop) -> None:
    manifest = rehearsal.csv(shots(4, model="dop-lite"))
    rehearsal.buy(manifest, "--max-new", 1)
    words = (manifest, "--max-cost", "0.5", "--set", "budget.per_day=0.3", "--set", "budget.per_month=100")
    text = rehearsal.call("plan", *words).out
    assert re.search(r"^run +\$0\.500 +\$0\.135 +\$0\.365 +with the next run$", text, flags=re.M)
    assert re.search(r"^day +\$0\.300 +\$0\.135 +\$0\.165 +\d{4}-\d\d-\d\d 00:00 UTC, in \d+ h", text, flags=re.M)
    assert re.search(r"^month +\$100\.000 +\$0\.135 +\$99\.865 +\d{4}-\d\d-01 00:00 UTC, in ", text, flags=re.M)
    assert "fits now: 1 of 3 for $0.135; then the day budget stops the run with exit 8" in text
    found = json.loads(rehearsal.call("plan", *words, "--json").out)
    assert (found["fits"], found["fits_usd"]) == (1, "0.135")
    assert [cap["span"] for cap in found["caps"]] == ["run", "day", "month"]
    end = rehearsal.buy(*words)
    assert (end.code, end.counts["done"]) == (8, 2), "what the plan said"


def test_the_plan_shows_each_prompt_as_it_would_be_sent(rehearsal: Dop) -> None:
    text = (
        "vars: {mood: calm}\ndefaults: {image: sandbox:cat, prompt: 'A {{ mood }} cat', seed: 7}\n"
        "matrix: {strength: [0.2, 0.4]}\n"
    )
    manifest = rehearsal.folder / "m.yaml"
    manifest.write_text(text, encoding="utf-8")
    shown = rehearsal.call("plan", manifest, "--show").out
    assert shown.count("    A calm cat\n") == 2
    assert rehearsal.call("plan", manifest, "--show", 1).out.count("    A calm cat\n") == 1
    (row,) = json.loads(rehearsal.call("plan", manifest, "--show", 1, "--json").out)["rows"]
    assert (row["prompt"], row["seed"], row["motions_strength"]) == ("A calm cat", 7, 0.2)
    assert rehearsal.call("plan", "--show", manifest).code == 2


# output devices -------------------------------------------------------------------------------------------------------


def typed_into(dop: Dop, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command],
        cwd=dop.folder,
        env=dop.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", ["--help", "motions", "completion bash"])
def test_a_full_device_is_an_error_and_a_reader_that_leaves_is_none(rehearsal: Dop, words: str) -> None:
    full = typed_into(rehearsal, f"{DOP} {words} > /dev/full")
    assert full.returncode == 5
    assert full.stderr.endswith("dop: stdout can't be written: No space left on device\n")
    left = typed_into(rehearsal, f"{DOP} {words} | true; {DOP} {words} >&-")
    assert (left.returncode, "Traceback" in left.stderr, "Exception" in left.stderr) == (0, False, False)


def test_a_terminal_that_knows_ascii_alone_shows_everything(rehearsal: Dop) -> None:
    rehearsal.csv("id,image,prompt,seed\né,sandbox:cat,Ünï 猫,1\n")
    rehearsal.environ["PYTHONIOENCODING"] = "ascii"
    done = typed_into(rehearsal, f"{DOP} plan shots.csv --show")
    assert done.returncode == 0, done.stderr
    assert "\\xdcn\\xef \\u732b" in done.stdout


@pytest.mark.long
def test_who_started_a_run_is_in_list_and_report(rehearsal: Dop) -> None:
    rehearsal.environ["LOGNAME"] = "anna"
    rehearsal.buy(rehearsal.csv(shots(1)))
    assert re.search(
        r"^\S+ +\d{4}-\d\d-\d\d \d\d:\d\d +anna +sandbox +1/1 +\$\d\.\d{3} +ended$", rehearsal.call("list").out, re.M
    )
    assert json.loads((rehearsal.latest / "run.json").read_text(encoding="utf-8"))["started_by"] == "anna"


# several operators ----------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("umask", "others", "group"), [("0002", 0o4, 0o6), ("0022", 0o4, 0o4), ("0027", 0, 0o4), ("0077", 0, 0)]
)
def test_the_umask_decides_who_may_look_and_the_ledger_is_for_the_group_alone(
    rehearsal: Dop, umask: str, others: int, group: int
) -> None:
    manifest = rehearsal.csv(shots(1))
    done = typed_into(rehearsal, f"umask {umask}; {DOP} run {manifest} --outputs out -q --set poll.first_s=0.05")
    assert done.returncode == 0, done.stderr
    shown = [rehearsal.latest / name for name in ("report.csv", "report.html", "run.log", "run.json")]
    for path in (*shown, *rehearsal.latest.glob("videos/*.mp4")):
        assert path.stat().st_mode & 0o777 == 0o600 | group << 3 | others, path
    ledger = [path for path in rehearsal.outputs.glob("ledger.db*") if path.is_file()]
    assert len(ledger) >= 3
    for path in ledger:
        assert path.stat().st_mode & 0o777 == 0o600 | group << 3, path
    assert (rehearsal.outputs.stat().st_mode & 0o777) == 0o777 & ~int(umask, 8)
