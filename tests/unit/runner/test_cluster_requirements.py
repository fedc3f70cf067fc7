"""A cluster says at the start what it lacks, and no other command loads any of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.loader import load
from pipeline.errors import UsageError
from pipeline.runner.cluster import optional_packages, requirements

WHOLE = {
    "ledger.url": "postgresql://dop@127.0.0.1/dop",
    "gateway.base_url": "http://127.0.0.1:9",
    "cluster.shared_outputs": "true",
}


def database(**changed: str) -> str:
    overrides = WHOLE | {key.replace("__", "."): value for key, value in changed.items()}
    return requirements.database(load(None, overrides=overrides, environ={}))


def test_settings_of_a_cluster_are_taken() -> None:
    assert database() == WHOLE["ledger.url"]
    assert database(cluster__shared_outputs="false", outputs__dir="s3://film/videos") == WHOLE["ledger.url"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gateway__base_url": "sandbox"}, "dop sandbox serve"),
        ({"cluster__shared_outputs": "false"}, "outputs.dir to an object store"),
        ({"on_unknown__policy": "resend", "on_unknown__max_cost": "1"}, "not for a cluster"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(changed: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        database(**changed)


def test_a_ledger_in_a_file_is_no_cluster() -> None:
    overrides = {key: value for key, value in WHOLE.items() if key != "ledger.url"}
    with pytest.raises(UsageError, match=r"ledger\.url"):
        requirements.database(load(None, overrides=overrides, environ={}))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional_packages, "find_spec", lambda name: None if name == "croniter" else object())
    with pytest.raises(UsageError, match=r"croniter: pip install croniter 'psycopg\[binary\]'"):
        database()


@pytest.mark.long
def test_nothing_of_a_cluster_is_loaded_by_a_run_on_one_machine() -> None:
    asked = "import sys, pipeline.cli.commands.run; print([n for n in ('croniter', 'psycopg') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
