"""Results of several hosts, each with a disk of its own, in one object store."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_driver import shots
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server
from tests.support.worker_processes import Machines, several

pytestmark = pytest.mark.long

FOLDER = f"s3://{BUCKET}/films"
REQUESTS = 12


@pytest.fixture
def store() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


def words(machines: Machines, host: str) -> tuple[str, ...]:
    """The arguments of a command on one of the hosts: the store for all, its own disk for itself."""
    return ("--set", f"outputs.staging={machines.folder / host}", "--outputs", FOLDER)


def test_the_videos_of_all_hosts_lie_in_the_store_and_the_report_names_them(
    tmp_path: Path, postgres: str, store: S3Server
) -> None:
    script = Script(generation_s=0.5)
    with GatewayDouble(script) as double, several(tmp_path, postgres, double) as machines:
        machines.environ |= CREDENTIALS | {"DOP_OUTPUTS__ENDPOINT": store.url, "DOP_CLUSTER__SHARED_OUTPUTS": "false"}
        machines.environ["DOP_PACE__RATE"] = "10/1s"
        for host in ("one", "two"):
            machines.hire(words=words(machines, host))
        done = machines.buy(machines.csv(shots(REQUESTS)), "--cluster", *words(machines, "third"))
        output = done.err + machines.all_said()
        assert (done.code, machines.states(), double.charged) == (0, {"done": REQUESTS}, REQUESTS), output
        one, two, third = ({path.name for path in (tmp_path / host).rglob("*.mp4")} for host in ("one", "two", "third"))
        assert (len(one) + len(two), one | two) == (REQUESTS, third), "each is fetched from the gateway once"
        assert one
        assert two
        report = store.get(f"films/{done.run}/report.csv").decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(report)))
        assert [row["status"] for row in rows] == ["done"] * REQUESTS
        for row in rows:
            content = store.get(f"films/{done.run}/{row['local_path']}")
            assert (hashlib.sha256(content).hexdigest(), len(content)) == (row["sha256"], int(row["size_bytes"]))
            assert row["video_url"].startswith(double.base_url)
        page = store.get(f"films/{done.run}/report.html").decode()
        links = set(re.findall(r"videos/[A-Za-z0-9@._-]+\.(?:mp4|jpg)", page))
        assert (len([link for link in links if link.endswith(".mp4")]), len(double.downloads)) == (REQUESTS, REQUESTS)
        assert {f"films/{done.run}/{link}" for link in links} <= set(store.names())
        assert store.get("films/latest").decode().strip() == done.run
        assert machines.dismiss() == [0, 0]


def test_a_store_that_is_away_when_the_run_is_ordered_buys_nothing_on_any_host(
    tmp_path: Path, postgres: str, store: S3Server
) -> None:
    with GatewayDouble() as double, several(tmp_path, postgres, double) as machines:
        machines.environ |= CREDENTIALS | {"DOP_OUTPUTS__ENDPOINT": store.url, "DOP_CLUSTER__SHARED_OUTPUTS": "false"}
        machines.hire(words=words(machines, "one"))
        store.stop()
        done = machines.buy(machines.csv(shots(3)), "--cluster", *words(machines, "third"))
        assert done.code == 5, done.err + machines.all_said()
        assert f"nothing is bought: {FOLDER} does not take" in done.err
        assert (machines.states(), double.submits) == ({"planned": 3}, [])
        store.start()
        again = machines.buy(machines.csv(shots(3)), "--cluster", *words(machines, "third"))
        assert (again.code, machines.states(), double.charged) == (0, {"done": 3}, 3), again.err + machines.all_said()
