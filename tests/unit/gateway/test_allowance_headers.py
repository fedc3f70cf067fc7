"""What the headers of an answer say of the rate limit, in the dialects that gateways use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gateway.allowance_headers import StatedAllowance, allowance_of

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"ratelimit": '"default";r=50;t=30'}, StatedAllowance(remaining=50, reset_s=30)),
        ({"ratelimit": '"a";r=50;t=30, "b";r=2;t=600'}, StatedAllowance(remaining=2, reset_s=600)),
        ({"ratelimit": "default;r=0;t=5"}, StatedAllowance(remaining=0, reset_s=5)),
        ({"ratelimit": "limit=100, remaining=7, reset=30"}, StatedAllowance(remaining=7, reset_s=30)),
        ({"ratelimit-remaining": "4", "ratelimit-reset": "9"}, StatedAllowance(remaining=4, reset_s=9)),
        ({"x-ratelimit-remaining": "4", "x-ratelimit-reset": "1790000012"}, StatedAllowance(remaining=4, reset_s=12)),
        ({"x-ratelimit-remaining": "4", "x-ratelimit-reset": "1790000012500"}, StatedAllowance(remaining=4, reset_s=12.5)),  # noqa: E501
        ({"x-rate-limit-remaining": "4", "x-rate-limit-reset": "12"}, StatedAllowance(remaining=4, reset_s=12)),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"},
            StatedAllowance(remaining=0, reset_s=360),
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "20ms"}, StatedAllowance(remaining=0, reset_s=0.02)),
        ({"x-ratelimit-remaining": "0"}, StatedAllowance(remaining=0)),
        ({"ratelimit-policy": '"default";q=100;w=60'}, StatedAllowance(count=100, span_s=60)),
        ({"ratelimit-policy": '"day";q=1000;w=86400, "min";q=100;w=60'}, StatedAllowance(count=1000, span_s=86400)),
        ({"ratelimit-limit": "10, 10;w=1, 500;w=60"}, StatedAllowance(count=500, span_s=60)),
        ({"x-ratelimit-limit": "100, 100;w=60"}, StatedAllowance(count=100, span_s=60)),
    ],
)  # fmt: skip
def test_each_dialect_is_read(headers: dict[str, str], said: StatedAllowance) -> None:
    assert allowance_of(headers, now_unix=NOW) == said


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": "3"},
        {"x-ratelimit-remaining": "plenty"},
        {"x-ratelimit-remaining": "-1"},
        {"x-ratelimit-remaining": "9.5"},
        {"x-ratelimit-remaining-tokens": "3"},
        {"ratelimit": "unlimited"},
        {"ratelimit-policy": '"a";q=0;w=60'},
    ],
)
def test_what_says_nothing_is_nothing(headers: dict[str, str]) -> None:
    assert allowance_of(headers, now_unix=NOW) is None


NAMES = st.sampled_from(
    [
        *("ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
        *("x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-limit", "x-rate-limit-remaining"),
    ]
)


@given(st.dictionaries(NAMES, st.text(alphabet='0123456789;=,."rtqw msh-x', max_size=40)))
def test_no_header_breaks_the_reading_and_no_number_is_absurd(headers: dict[str, str]) -> None:
    said = allowance_of(headers, now_unix=NOW)
    if said is not None:
        assert said.remaining is None or 0 <= said.remaining <= 10**9
        assert said.reset_s is None or 0 <= said.reset_s < float("inf")
        assert (said.count is None) == (said.span_s is None)
