"""What docs/guides/several-machines.md shows can be used unchanged."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.parser import build_parser

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "several-machines.md").read_text(encoding="utf-8")
MAX_SUBMIT_S = 330


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def documents(word: str) -> list[Any]:
    return [found for found in map(yaml.safe_load, blocks("yaml")) if word in found]


@pytest.mark.long
def test_the_kubernetes_manifest_is_valid() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    (manifest,) = documents("kind")
    validate.validate(manifest, "1.32", strict=True)
    with pytest.raises(validate.ValidationError):
        validate.validate(manifest | {"spec": manifest["spec"] | {"replica": 3}}, "1.32", strict=True)


def test_everybody_gives_a_submit_in_flight_the_time_to_end() -> None:
    (manifest,) = documents("kind")
    assert manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > MAX_SUBMIT_S
    (compose,) = documents("services")
    assert int(compose["services"]["worker"]["stop_grace_period"].removesuffix("s")) > MAX_SUBMIT_S
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(blocks("ini")[0])
    assert unit["Service"]["Restart"] == "always"
    assert int(unit["Service"]["TimeoutStopSec"]) > MAX_SUBMIT_S


def test_every_command_that_is_shown_is_one() -> None:
    (manifest,) = documents("kind")
    (compose,) = documents("services")
    worker = compose["services"]["worker"]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    shown = [worker["command"], worker["healthcheck"]["test"][1:], container["command"]]
    shown.append(container["livenessProbe"]["exec"]["command"])
    shown += [shlex.split(line, comments=True) for line in blocks("sh")[0].splitlines() if line.startswith("dop ")]
    assert len(shown) == 7
    for program, *words in shown:
        assert program == "dop"
        build_parser().parse_args(words)
