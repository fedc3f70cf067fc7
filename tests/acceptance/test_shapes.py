"""Whatever wording the gateway chooses: every paid job ends with its video, and no address of a trap is fetched."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import KEY, cost, shots
from tests.support.fake_gateway import tiny_clip
from tests.support.response_shapes import SHAPES


def test_every_wording_of_the_gateway_ends_with_the_video(against: Callable[..., Opened]) -> None:
    shapes = {str(number): {"shape": name} for number, name in enumerate(SHAPES, start=1)}
    dop, double = against(jobs=shapes, generation_s=0.3)
    end = dop.buy(dop.csv(shots(len(SHAPES))))
    wrong = {
        row["job_set_id"]: (row["status"], row["reason"])
        for row in dop.rows()
        if row["status"] != "done" or not row["local_path"]
    }
    named = dict(zip(double.jobs, SHAPES, strict=True))
    assert {named[job]: state for job, state in wrong.items()} == {}
    assert end.code == 0, end.err
    assert double.charged == len(SHAPES)
    assert double.complaints == []
    assert all(video.read_bytes() == tiny_clip() for video in dop.videos())
    assert len(set(dop.videos())) == len(SHAPES)
    assert cost(dop.rows()) == Decimal(double.charged_mills) / 1000 == Decimal(dop.ledger_mills()) / 1000


def test_the_key_goes_to_the_gateway_and_not_to_the_storage(against: Callable[..., Opened]) -> None:
    dop, double = against(jobs={"*": {"redirects": 2}})
    end = dop.buy(dop.csv(shots(2)))
    assert end.code == 0, end.err
    assert all(submit["headers"]["ocp-apim-subscription-key"] == KEY for submit in double.submits)
    assert all(poll.headers["ocp-apim-subscription-key"] == KEY for poll in double.polls)
    assert len(double.downloads) == 2 * 3
    assert not any(KEY in str(download.headers) for download in double.downloads)
    left = [path for path in dop.outputs.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert left == []
    assert KEY not in end.out + end.err
