"""The API document, table by table, from the manifest to the wire: each parameter with its limits, each status code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, table

Against = Callable[..., Opened]

GENERAL = "31177282-bde3-4870-b283-1135ca0a201a"
ORBIT = "ea035f68-b350-40f1-b7f4-7dff999fdd67"
ROW = {"id": "a", "image": "https://cdn.example.com/a.jpg", "prompt": "a mill", "seed": 7}
WIRE: dict[str, Any] = {
    "model": "dop-lite",
    "prompt": "a mill",
    "seed": 7,
    "motions_id": GENERAL,
    "motions_strength": 0.7,
    "input_images": ["https://cdn.example.com/a.jpg"],
    "enhance_prompt": False,
}

PARAMETERS: list[tuple[dict[str, object], dict[str, Any]]] = [
    ({"model": "dop-lite"}, {"model": "dop-lite"}),
    ({"model": "dop-preview"}, {"model": "dop-preview"}),
    ({"model": "dop-turbo"}, {"model": "dop-turbo"}),
    ({"prompt": "Zoë's “mill” 日本 🎬"}, {"prompt": "Zoë's “mill” 日本 🎬"}),
    ({"seed": 1}, {"seed": 1}),
    ({"seed": 1_000_000}, {"seed": 1_000_000}),
    ({"motion": "360 orbit"}, {"motions_id": ORBIT}),
    ({"motions_id": ORBIT.upper()}, {"motions_id": ORBIT}),
    ({"strength": 0}, {"motions_strength": 0.0}),
    ({"motions_strength": "0.01"}, {"motions_strength": 0.01}),
    ({"strength": "0.57"}, {"motions_strength": 0.57}),
    ({"strength": 1}, {"motions_strength": 1.0}),
    (
        {"image": "https://cdn.example.com/a%20b.png?w=1&h=2"},
        {"input_images": ["https://cdn.example.com/a%20b.png?w=1&h=2"]},
    ),
    ({"end_image": "https://cdn.example.com/z.webp"}, {"input_images_end": ["https://cdn.example.com/z.webp"]}),
    ({"enhance_prompt": "true"}, {"enhance_prompt": True}),
    ({"enhance_prompt": "false"}, {"enhance_prompt": False}),
    ({"check_nsfw": "true"}, {"check_nsfw": True}),
    ({"check_nsfw": "false"}, {"check_nsfw": False}),
]


def in_order(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)


def named(changes: dict[str, object]) -> str:
    return ",".join(f"{name}={value}" for name, value in changes.items())[:30]


def test_every_parameter_reaches_the_wire_as_the_document_has_it(against: Against) -> None:
    dop, double = against()
    aliases = {"motions_id": "motion", "motions_strength": "strength"}
    rows = [
        ROW | {"id": f"p{number}"} | {aliases.get(name, name): value for name, value in changes.items()}
        for number, (changes, _) in enumerate(PARAMETERS)
    ]
    spread = [{"seed": "", **row} for row in rows]
    # Rows that say nothing new would be one purchase; their take tells them apart and is never sent.
    end = dop.buy(dop.csv(table([row | {"take": number + 1} for number, row in enumerate(spread)])), "--no-download")
    assert end.code == 0, end.err
    sent = sorted((submit["body"] for submit in double.submits), key=in_order)
    assert sent == sorted((WIRE | expected for _, expected in PARAMETERS), key=in_order)
    assert all("take" not in body and "webhook_url" not in body for body in sent)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "dop-lit"}, "Did you mean 'dop-lite'"),
        ({"prompt": ""}, "prompt"),
        ({"seed": 0}, "1..1,000,000"),
        ({"seed": 1_000_001}, "1..1,000,000"),
        ({"seed": "1.5"}, "seed"),
        ({"seed": ""}, "seed"),
        ({"motion": "Doly In"}, "Dolly In"),
        ({"strength": "1.01"}, "strength"),
        ({"strength": "-0.01"}, "strength"),
        ({"strength": "0.705"}, "strength"),
        ({"image": ""}, "image"),
        ({"image": "ftp://cdn.example.com/a.jpg"}, "not http or https"),
        ({"enhance_prompt": "maybe"}, "enhance_prompt"),
        ({"check_nsfw": "2"}, "check_nsfw"),
        ({"webhook_url": "https://hooks.example.com"}, "webhook_url"),
        ({"webhook_secret": "abc"}, "webhook_secret"),
    ],
    ids=lambda value: named(value) if isinstance(value, dict) else "",
)
def test_a_value_outside_the_documents_limits_is_reported_before_anything_is_sent(
    rehearsal: Dop, changes: dict[str, object], words: str
) -> None:
    end = rehearsal.buy(rehearsal.csv(table([ROW | changes])))
    assert end.code == 2, end.err
    assert words in end.err
    assert not (rehearsal.outputs / "ledger.db").exists() or rehearsal.ledger_mills() == 0


@pytest.mark.parametrize(
    ("status", "error", "state", "code"),
    [
        (400, "Invalid request parameters", "rejected", 1),
        (401, "Invalid or missing authentication", "planned", 7),
        (403, "Access denied for this operation", "planned", 7),
        (404, "Endpoint not found", "planned", 7),
        (429, "Rate limit exceeded, please retry later", "done", 0),
        (500, "An unexpected error occurred, please try again later", "unknown", 3),
    ],
)
def test_every_status_code_of_the_document_ends_as_its_table_says(
    against: Against, status: int, error: str, state: str, code: int
) -> None:
    numbers = "1" if status == 429 else "*"
    dop, double = against(submits={numbers: {"status": status, "body": {"error": error}, "wait_s": 1}})
    if status != 429:
        double.script.submits["*"].pop("wait_s")
    end = dop.buy(dop.csv(table([ROW])), "--no-download")
    assert end.code == code, end.err
    (row,) = dop.rows()
    assert row["status"] == state
    assert double.charged == (1 if status == 429 else 0)
    assert status == 429 or error in end.err + row["reason"]
