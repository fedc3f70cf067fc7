"""The submit side of the API's JSON, in the document's own words and in all others that were seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.gateway.json_fields import read_json
from pipeline.gateway.kinds.pixazo import poll_body, submit_body
from pipeline.gateway.wire import echo_differs, names_job_set, parse_submit, recoverable_ids
from tests.support.factories import make_params

FIXTURES = Path(__file__).parents[2] / "fixtures"


def document(name: str) -> bytes:
    """One JSON example of the API document, verbatim."""
    return (FIXTURES / f"document_{name}.json").read_bytes()


def test_the_documents_request_is_sent_value_for_value_and_in_its_order() -> None:
    params = make_params(
        prompt="A serene lake with gentle ripples, birds flying overhead, cinematic lighting",
        seed=123456,
        motions_id="3c90c3cc-0d44-4b50-8888-8dd25736052a",
        enhance_prompt=True,
    )
    sent, written = json.loads(submit_body(params)), json.loads(document("submit_request"))
    assert list(sent.items()) == list(written.items())


def test_equal_params_give_equal_bytes() -> None:
    assert submit_body(make_params()) == submit_body(make_params())


def test_strength_is_a_number_with_at_most_two_decimals() -> None:
    for hundredths in range(101):
        body = submit_body(make_params(strength_hundredths=hundredths)).decode()
        written = body.split('"motions_strength": ')[1].split(",")[0]
        assert len(written.partition(".")[2]) <= 2
        assert round(float(written) * 100) == hundredths


def test_optional_fields_are_absent_until_given() -> None:
    assert {"input_images_end", "check_nsfw", "webhook_url", "webhook_secret"}.isdisjoint(
        json.loads(submit_body(make_params()))
    )


def test_optional_fields_are_sent_when_given_also_when_false() -> None:
    params = make_params(check_nsfw=False, input_images_end=("https://e.x/end.png",))
    body = json.loads(submit_body(params, webhook_url="https://me.example/hook", webhook_secret="s3cret"))
    assert body["check_nsfw"] is False
    assert body["input_images_end"] == ["https://e.x/end.png"]
    assert (body["webhook_url"], body["webhook_secret"]) == ("https://me.example/hook", "s3cret")


@pytest.mark.parametrize("only", [{"webhook_url": "https://me.example/"}, {"webhook_secret": "s"}])
def test_a_webhook_needs_both_fields(only: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="go together"):
        submit_body(make_params(), **only)  # type: ignore[arg-type]


def test_uploaded_images_are_sent_by_their_address_at_both_ends() -> None:
    params = make_params(input_images=("/photos/mill.jpg",), input_images_end=("/photos/dusk.jpg",))
    images = {"/photos/mill.jpg": "https://store/1", "/photos/dusk.jpg": "https://store/2"}
    body = json.loads(submit_body(params, images=images))
    assert (body["input_images"], body["input_images_end"]) == (["https://store/1"], ["https://store/2"])


def test_a_prompt_of_any_script_survives_as_ascii_json() -> None:
    prompt = 'ein Müller "läuft" \n 日本 🎬 \\'
    body = submit_body(make_params(prompt=prompt))
    assert body.isascii()
    assert json.loads(body)["prompt"] == prompt


def test_poll_body_is_the_documents() -> None:
    assert json.loads(poll_body("your-job-set-id-here")) == json.loads(document("poll_request"))


# --- reading the submit answer ---


@pytest.mark.parametrize("name", ["submit_answer", "submit_answer_short"])
def test_the_documents_answers_give_the_job_set_id(name: str) -> None:
    ticket = parse_submit(read_json(document(name)))
    assert ticket is not None
    assert ticket.job_set_id == "96ddb2c0-2685-XXXX-XXXX-XXXXXXXXXXXX"


def test_the_documents_answer_echoes_seed_and_prompt() -> None:
    ticket = parse_submit(read_json(document("submit_answer")))
    assert ticket is not None
    assert (ticket.echoed_seed, ticket.echoed_prompt) == (123456, "<PROMPT>")


SUBMIT_SHAPES = {
    "document": ({"job_set_id": "a1"}, "a1"),
    "camel case": ({"jobSetId": "a1"}, "a1"),
    "queue": (
        {"request_id": "r1", "status": "QUEUED", "polling_url": "https://gw/v2/requests/status/r1"},
        "r1",
    ),
    "queue camel case": ({"requestId": "r1"}, "r1"),
    "upstream": ({"id": "u1", "type": "image2video", "jobs": [{"id": "j1"}]}, "u1"),
    "task id": ({"task_id": "t1"}, "t1"),
    "number": ({"id": 4711}, "4711"),
    "white space round it": ({"job_set_id": " a1\n"}, "a1"),
    "braces": ({"job_set_id": "{3F2504E0-4F89}"}, "{3F2504E0-4F89}"),
    "base64": ({"job_set_id": "a/b+c=="}, "a/b+c=="),
    "in data": ({"success": True, "data": {"job_set_id": "d1"}}, "d1"),
    "in output": ({"output": {"task_id": "o1"}}, "o1"),
    "in result": ({"result": {"id": "x1"}}, "x1"),
    "in a data list of one": ({"data": [{"id": "l1"}]}, "l1"),
    "alone in a list": ([{"job_set_id": "a1"}], "a1"),
    "job set beats request": ({"request_id": "trace", "job_set_id": "a1"}, "a1"),
    "request beats id": ({"id": "trace", "request_id": "r1"}, "r1"),
    "wrapped job set beats outer id": ({"id": "trace", "data": {"job_set_id": "a1"}}, "a1"),
    "null is no id": ({"job_set_id": None, "id": "i1"}, "i1"),
    "old path, new shape": (
        {"job_set_id": "a1", "polling_url": "/v2/requests/status/a1"},
        "a1",
    ),
}


@pytest.mark.parametrize(("payload", "job_set_id"), SUBMIT_SHAPES.values(), ids=SUBMIT_SHAPES)
def test_every_known_shape_of_a_submit_answer_gives_its_id(payload: object, job_set_id: str) -> None:
    ticket = parse_submit(payload)
    assert ticket is not None
    assert ticket.job_set_id == job_set_id


NO_TICKETS = {
    "only a job's id": {"jobs": [{"id": "182d2a3c"}]},
    "empty": {},
    "empty id": {"job_set_id": ""},
    "blank id": {"job_set_id": "   "},
    "id with a line break": {"job_set_id": "a\nb"},
    "id with a path": {"job_set_id": "../../x"},
    "id too long": {"job_set_id": "a" * 600},
    "true is no id": {"id": True},
    "zero is no id": {"id": 0},
    "an object is no id": {"id": {"x": 1}},
    "error": {"error": "Invalid parameters"},
    "two job sets": [{"job_set_id": "a1"}, {"job_set_id": "a2"}],
    "echo only": {"input_params": {"id": "x", "job_set_id": "y"}},
    "null": None,
    "text": "accepted",
    "number": 12,
    "empty list": [],
}


@pytest.mark.parametrize("payload", NO_TICKETS.values(), ids=NO_TICKETS)
def test_an_answer_without_an_id_to_poll_gives_no_ticket(payload: object) -> None:
    assert parse_submit(payload) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"<html>", b"\xff\xfe{", b"[" * 200_000, b'{"id": ' + b"9" * 5000 + b"}", b'{"a":1}{"b":2}', b"\x80"],
)
def test_a_body_that_is_not_json_is_none_and_never_raises(body: bytes) -> None:
    assert read_json(body) is None


def test_json_with_a_byte_order_mark_is_read() -> None:
    assert read_json(b'\xef\xbb\xbf{"job_set_id": "a"}') == {"job_set_id": "a"}


# --- is it the answer to what was sent? ---


def answer_that_repeats(**echo: object) -> object:
    return {"job_set_id": "a1", "input_params": echo}


@pytest.mark.parametrize(
    "echo",
    [
        {},
        {"seed": 7},
        {"prompt": "A serene lake with gentle ripples"},
        {"prompt": "  a SERENE lake\nwith gentle ripples. Cinematic."},
        {"prompt": "A serene lake"},
        {"prompt": "quite another, but enhanced", "enhance_prompt": True, "seed": 7},
        {"seed": "7"},
        {"seed": True},
    ],
)
def test_an_echo_of_our_own_request_is_ours(echo: dict[str, object]) -> None:
    ticket = parse_submit(answer_that_repeats(**echo))
    assert ticket is not None
    assert echo_differs(ticket, make_params(seed=7)) is None


@pytest.mark.parametrize("echo", [{"seed": 8}, {"seed": 7, "prompt": "A stormy sea"}])
def test_an_echo_of_another_request_is_noticed(echo: dict[str, object]) -> None:
    ticket = parse_submit(answer_that_repeats(**echo))
    assert ticket is not None
    assert echo_differs(ticket, make_params(seed=7))


def test_an_enhanced_prompt_is_not_compared() -> None:
    ticket = parse_submit(answer_that_repeats(prompt="rewritten by the service", seed=7))
    assert ticket is not None
    assert echo_differs(ticket, make_params(seed=7, enhance_prompt=True)) is None


# --- ids in the rubble ---


def test_every_cut_of_the_documents_answer_salvages_the_job_set_or_nothing() -> None:
    whole = document("submit_answer")
    end_of_id = whole.index(b"XXXXXXXXXXXX") + len(b'XXXXXXXXXXXX"')
    for cut in range(len(whole)):
        expected = ("96ddb2c0-2685-XXXX-XXXX-XXXXXXXXXXXX",) if cut >= end_of_id else ()
        assert recoverable_ids(whole[:cut]) == expected


@pytest.mark.parametrize(
    ("rubble", "found"),
    [
        (b'{"jobs":[{"id":"182d2a3c","status":"queued"', ()),
        (b'{"id":"u1","jobs":[{"id":"j1"', ("u1",)),
        (b'{"input_params":{"motions":[{"id":"m1"', ()),
        (b'{"request_id":"r1","status":"QU', ("r1",)),
        (b'{"id":4711,"sta', ("4711",)),
        (b'{"id":47', ()),
        (b'{"polling_url":"https://gw/v2/requests/status/r9","st', ("r9",)),
        (b'{"job_set_id":"a"}{"job_set_id":"b"}', ("a", "b")),
        (b'{"request_id":"r","job_set_id":"a","', ("a", "r")),
        (b'<html>"request_id": "r1"</html>', ("r1",)),
        (rb'{"prompt":"say \"job_set_id\": \"evil\" now"', ()),
        (rb'"{\"job_set_id\": \"a1\", \"jobs\": [{\"id\": \"j1\"}]}"', ("a1",)),
        (rb'{"statusCode": 200, "body": "{\"id\": \"a1\", \"type\": \"image2video\"}"}', ("a1",)),
        (b'"ce38706e-76ea-4869-89a7-29715a189ba1"', ("ce38706e-76ea-4869-89a7-29715a189ba1",)),
        (b"ce38706e-76ea-4869-89a7-29715a189ba1\n", ("ce38706e-76ea-4869-89a7-29715a189ba1",)),
        (b"trace ce38706e-76ea-4869-89a7-29715a189ba1", ()),
        (b'"OK"', ()),
        (b'{"job_set_id":"../../etc"', ()),
        (b"\xff\xfe\x00garbage", ()),
        (b"", ()),
    ],
)
def test_ids_are_salvaged_from_rubble_but_never_a_jobs_or_a_motions(rubble: bytes, found: tuple[str, ...]) -> None:
    assert recoverable_ids(rubble) == found


def test_a_field_name_in_an_error_is_no_job_set() -> None:
    assert not names_job_set(b'{"detail":[{"loc":["body","job_set_id"],"msg":"missing"}]}')
    assert names_job_set(b'{"error":"late","job_set_id":"a1"}')


def read_jobs_first(payload: dict[str, list[dict[str, str]]]) -> str:
    """The broken twin: takes the first job's id for the set's, as some clients do."""
    return payload["jobs"][0]["id"]


def test_the_twin_that_polls_the_jobs_id_is_caught_by_the_documents_answer() -> None:
    payload = json.loads(document("submit_answer"))
    ticket = parse_submit(payload)
    assert ticket is not None
    assert read_jobs_first(payload) != ticket.job_set_id
