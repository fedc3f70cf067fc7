"""The result side of the API's JSON: every state word, every place of a clip's address, every mixture of jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.gateway.job_status import JobStatus, JobStatusReport, parse_poll
from pipeline.gateway.json_fields import read_json

CLIP = "https://cdn.example/clip.mp4"
SMALL = "https://cdn.example/clip-small.mp4"
INPUT = "https://cdn.example/input.png"
FIXTURES = Path(__file__).parents[2] / "fixtures"


def read(payload: object) -> JobStatusReport:
    """The report, read through real JSON."""
    report = parse_poll(read_json(json.dumps(payload).encode()))
    assert report is not None
    return report


WORDS = {
    JobStatus.PENDING: ["queued", "pending", "waiting", "submitted"],
    JobStatus.RUNNING: [
        "in_progress",
        "processing",
        "running",
        "generating",
        "In Progress",
        "in-progress",
        "inProgress",
    ],
    JobStatus.DONE: ["completed", "succeeded", "success", "done", "ready", "finished"],
    JobStatus.FAILED: ["failed", "error"],
    JobStatus.REFUSED: ["nsfw", "moderated", "ip_detected", "ip detected"],
    JobStatus.CANCELED: ["canceled", "cancelled"],
}
EVERY_WORD = [(word, phase) for phase, words in WORDS.items() for word in words]


@pytest.mark.parametrize(("word", "phase"), EVERY_WORD)
def test_every_state_word_is_known_in_any_case_and_place(word: str, phase: JobStatus) -> None:
    for said in (word, word.upper(), word.title(), f" {word} "):
        for payload in (
            {"job_set_id": "a", "status": said},
            {"job_set_id": "a", "state": said},
            {"job_set_id": "a", "task_status": said},
            {"jobs": [{"id": "j", "status": said}]},
            {"data": {"status": said, "id": "a"}},
            {"output": {"status": said, "id": "a"}},
            {"data": {"jobs": [{"status": said}]}},
        ):
            report = read(payload)
            assert (report.status, report.known_word) == (phase, True)


@pytest.mark.parametrize("word", ["upscaling", "在排队", "", "12000th in the queue", "timeout", "null"])
def test_an_unknown_word_means_still_pending(word: str) -> None:
    report = parse_poll({"job_set_id": "a", "status": word or "?"})
    assert report is not None
    assert (report.status, report.known_word) == (JobStatus.PENDING, False)


def test_the_documents_submit_answer_is_also_a_report() -> None:
    report = parse_poll(read_json((FIXTURES / "document_submit_answer.json").read_bytes()))
    assert report == JobStatusReport(
        status=JobStatus.PENDING, word="queued", job_set_id="96ddb2c0-2685-XXXX-XXXX-XXXXXXXXXXXX"
    )


# --- where the clip's address is ---

RESULT_SHAPES = {
    "jobs raw and min": {"jobs": [{"status": "S", "results": {"raw": {"url": CLIP}, "min": {"url": SMALL}}}]},
    "jobs raw only": {"jobs": [{"status": "S", "results": {"raw": {"url": CLIP}}}]},
    "jobs min only": {"jobs": [{"status": "S", "results": {"min": {"url": CLIP}}}]},
    "jobs results list": {"jobs": [{"status": "S", "results": [{"imageUrl": CLIP, "job_id": "j"}]}]},
    "top raw": {"status": "S", "results": {"raw": {"url": CLIP}}},
    "top results list url": {"status": "S", "results": [{"url": CLIP}]},
    "top results list video_url": {"status": "S", "results": [{"video_url": CLIP}]},
    "top results list videoUrl": {"status": "S", "results": [{"videoUrl": CLIP}]},
    "top results list imageUrl": {"status": "S", "results": [{"imageUrl": CLIP, "job_id": "j"}]},
    "top results list of text": {"status": "S", "results": [CLIP]},
    "queue media_url list": {"status": "S", "output": {"media_url": [CLIP], "media_type": "video/mp4"}, "error": None},
    "queue media_url text": {"status": "S", "output": {"media_url": CLIP}},
    "output text": {"status": "S", "output": CLIP},
    "output video_url": {"status": "S", "output": {"video_url": CLIP}},
    "output url": {"status": "S", "output": {"url": CLIP}},
    "video url": {"status": "S", "video": {"url": CLIP}},
    "video_url": {"status": "S", "video_url": CLIP},
    "output_url": {"status": "S", "output_url": CLIP},
    "url": {"status": "S", "url": CLIP},
    "wrapped in data": {"data": {"status": "S", "output": {"media_url": [CLIP]}}},
    "wrapped in result": {"result": {"status": "S", "video_url": CLIP}},
}


def saying(payload: object, word: str) -> object:
    """The shape with its state word filled in."""
    return json.loads(json.dumps(payload).replace('"S"', json.dumps(word)))


@pytest.mark.parametrize("ids", [{"job_set_id": "a1"}, {"request_id": "a1"}, {}], ids=["job-set", "queue", "no id"])
@pytest.mark.parametrize("shape", RESULT_SHAPES.values(), ids=RESULT_SHAPES)
def test_every_dialect_gives_its_clip_in_every_shape(shape: dict[str, object], ids: dict[str, str]) -> None:
    for word in WORDS[JobStatus.DONE]:
        report = read({**ids, **saying(shape, word), "input_params": {"input_images": [{"image_url": INPUT}]}})  # type: ignore[dict-item]
        assert (report.status, report.video_url) == (JobStatus.DONE, CLIP)
        assert report.job_set_id == ("a1" if ids else None)


@pytest.mark.parametrize("shape", RESULT_SHAPES.values(), ids=RESULT_SHAPES)
def test_a_clip_counts_only_once_the_job_is_done(shape: object) -> None:
    report = read(saying(shape, "processing"))
    assert (report.status, report.video_url) == (JobStatus.RUNNING, None)


def test_the_smaller_rendition_is_the_preview() -> None:
    assert read(saying(RESULT_SHAPES["jobs raw and min"], "completed")).preview_url == SMALL
    assert read(saying(RESULT_SHAPES["jobs min only"], "completed")).preview_url is None


@pytest.mark.parametrize(
    "payload",
    [
        {"status": "completed"},
        {"status": "completed", "results": None},
        {"status": "completed", "input": {"url": INPUT}},
        {"status": "completed", "input_params": {"url": INPUT, "input_images": [INPUT]}},
        {"status": "completed", "status_url": CLIP, "polling_url": CLIP, "cancel_url": CLIP},
        {"status": "completed", "video_url": "file:///etc/passwd"},
        {"status": "completed", "video_url": "javascript:alert(1)"},
        {"status": "completed", "video_url": "/relative.mp4"},
        {"status": "completed", "video_url": "https://a b/clip.mp4"},
        {"status": "completed", "video_url": "https://x/" + "a" * 9000},
        {"status": "completed", "video_url": ["", None, 3, {}]},
    ],
)
def test_done_without_a_usable_clip_is_done_without_address(payload: object) -> None:
    report = read(payload)
    assert (report.status, report.video_url) == (JobStatus.DONE, None)


FILE = "https://cdn.example.com/a/clip.mp4?sig=1"
ECHO = "https://cdn.example.com/in/driving.mp4"


@pytest.mark.parametrize(
    "around",
    [
        {"videos": [{"url": FILE}]},
        {"assets": {"video": FILE, "thumbnail": "https://cdn.example.com/a/clip.jpg"}},
        {"output": {"media_url": [{"url": FILE}]}},
        {"output": {"1080p": FILE}, "preview": {"url": "https://cdn.example.com/a/small.mp4"}},
        {"generation": {"result": {"files": [[FILE, FILE]]}}},
        {
            "clip": FILE,
            "input": {"video": ECHO},
            "input_params": {"video": ECHO},
            "status_url": ECHO,
            "webhookUrl": ECHO,
        },
    ],
)
def test_the_one_clip_of_a_shape_that_no_page_describes_is_not_lost(around: dict[str, object]) -> None:
    report = read({"job_set_id": "a1", "status": "completed", **around})
    assert (report.status, report.video_url) == (JobStatus.DONE, FILE)
    assert read({"job_set_id": "a1", "status": "processing", **around}).video_url is None


@pytest.mark.parametrize(
    "around",
    [
        {"mine": FILE, "others": [ECHO]},
        {"poster": "https://cdn.example.com/a/clip.jpg"},
        {"page": "https://example.com/watch/1"},
        {"input_params": {"video": ECHO}, "thumbnails": [FILE], "cancel_url": FILE, "source": FILE},
        {"note": f"see {FILE}"},
    ],
)
def test_an_unknown_shape_is_not_guessed_at(around: dict[str, object]) -> None:
    assert read({"job_set_id": "a1", "status": "completed", **around}).video_url is None


def test_a_known_place_wins_over_an_unknown_one_and_nesting_has_an_end() -> None:
    assert read({"status": "completed", "video_url": CLIP, "extra": FILE}).video_url == CLIP
    nested: object = FILE
    for _ in range(50):
        nested = {"x": [nested]}
    assert read({"status": "completed", "deep": nested}).video_url is None


def test_a_space_in_a_files_name_is_written_as_an_address_needs_it() -> None:
    url = read({"status": "completed", "video_url": " https://cdn.example.com/my clip.mp4?a=b c "}).video_url
    assert url == "https://cdn.example.com/my%20clip.mp4?a=b%20c"


def test_a_clip_without_a_state_is_done_but_a_bare_url_is_not() -> None:
    assert read({"results": {"raw": {"url": CLIP}}}).status is JobStatus.DONE
    assert parse_poll({"url": CLIP}) is None


# --- several jobs ---


def job(word: str | None, url: str | None = None) -> dict[str, object]:
    return {"id": "j", "status": word, "results": {"raw": {"url": url}} if url else None}


@pytest.mark.parametrize(
    ("jobs", "phase", "url"),
    [
        ([job("failed"), job("completed", CLIP)], JobStatus.DONE, CLIP),
        ([job("queued"), job("completed", CLIP)], JobStatus.DONE, CLIP),
        ([job("failed", SMALL), job("completed", CLIP)], JobStatus.DONE, CLIP),
        ([job("failed"), job("queued")], JobStatus.PENDING, None),
        ([job("failed"), job("in_progress"), job("queued")], JobStatus.RUNNING, None),
        ([job("failed"), job("who knows")], JobStatus.PENDING, None),
        ([job("failed"), job(None)], JobStatus.PENDING, None),
        ([job("failed"), job("failed")], JobStatus.FAILED, None),
        ([job("nsfw"), job("nsfw")], JobStatus.REFUSED, None),
        ([job("nsfw"), job("canceled")], JobStatus.FAILED, None),
        ([job("canceled")], JobStatus.CANCELED, None),
        ([job("completed"), job("failed")], JobStatus.DONE, None),
        ([job("completed"), job("queued")], JobStatus.PENDING, None),
    ],
)
def test_a_set_is_done_with_its_first_clip_and_over_when_all_are_over(
    jobs: list[object], phase: JobStatus, url: str | None
) -> None:
    report = read({"job_set_id": "a", "jobs": jobs})
    assert (report.status, report.video_url) == (phase, url)


@pytest.mark.parametrize("jobs", [None, [], {}, "x", [None], [1]])
def test_missing_or_empty_jobs_leave_the_word_on_top(jobs: object) -> None:
    assert read({"status": "processing", "jobs": jobs}).status is JobStatus.RUNNING


@pytest.mark.parametrize(
    ("payload", "phase"),
    [
        ({"status": "success", "data": {"status": "in_progress"}}, JobStatus.RUNNING),
        ({"success": True, "status": "success", "jobs": [{"status": "queued"}]}, JobStatus.PENDING),
        ({"status": "failed", "jobs": [{"status": "queued"}]}, JobStatus.FAILED),
        ({"status": "canceled", "jobs": [{"status": "in_progress"}]}, JobStatus.CANCELED),
        ({"status": "failed", "jobs": [job("completed", CLIP)]}, JobStatus.DONE),
        ({"status": "in_progress", "jobs": [job("completed", CLIP)]}, JobStatus.DONE),
        ({"status": "completed", "jobs": [{"status": "odd"}], "video_url": CLIP}, JobStatus.DONE),
    ],
)
def test_when_the_top_and_the_jobs_disagree_no_running_job_is_given_up(payload: object, phase: JobStatus) -> None:
    assert read(payload).status is phase


# --- what is not about the job ---


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {},
        "done",
        7,
        {"error": "Endpoint not found"},
        {"success": False, "error": "An unexpected error occurred"},
        {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 60 seconds."},
        {"status": "error", "message": "please retry"},
        {"status": "error", "code": 500},
        {"status": 404, "title": "Not Found"},
        {"status": "failed", "statusCode": 503},
        {"status": None},
        {"status": ""},
        [{"status": "completed"}, {"status": "failed"}],
    ],
)
def test_an_error_of_the_call_is_no_report(payload: object) -> None:
    assert parse_poll(payload) is None


def test_an_error_state_that_names_its_job_is_the_jobs() -> None:
    assert read({"request_id": "r1", "status": "ERROR", "error": "model crashed"}).status is JobStatus.FAILED


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"error": "out of memory"}, "out of memory"),
        ({"error": {"message": "bad image", "code": 12}}, "bad image"),
        ({"error": ["first", "second"]}, "first; second"),
        ({"error_message": "m1"}, "m1"),
        ({"message": "m2"}, "m2"),
        ({"detail": "d1"}, "d1"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "too big"}]}, "body.seed: too big"),
        ({"details": {"reason": "d2"}}, "d2"),
        ({"reason": "r1"}, "r1"),
        ({"jobs": [{"status": "failed", "error": "j1"}]}, "j1"),
        ({"error": None, "message": "m3"}, "m3"),
        ({"error": "line one\nline two\x1b[31m"}, "line one line two [31m"),
        ({}, None),
    ],
)
def test_a_failures_reason_is_the_gateways_own_words_on_one_line(fields: dict[str, object], reason: str | None) -> None:
    assert read({"job_set_id": "a", "status": "failed", **fields}).reason == reason


def test_a_running_job_has_no_reason() -> None:
    assert read({"job_set_id": "a", "status": "queued", "message": "12,000th in the queue"}).reason is None


# --- broken twins ---


def crash_on_unknown_words(payload: dict[str, str]) -> JobStatus:
    """The broken twin: an enumeration made from the word, as typed clients do."""
    return JobStatus(payload["status"].lower())


def test_the_twin_that_makes_an_enum_of_the_word_is_caught() -> None:
    payload = {"job_set_id": "a", "status": "upscaling"}
    assert read(payload).status is JobStatus.PENDING
    with pytest.raises(ValueError, match="upscaling"):
        crash_on_unknown_words(payload)


def first_address_anywhere(value: object) -> str | None:
    """The broken twin: the first thing that looks like an address."""
    if isinstance(value, dict):
        return next((found for part in value.values() if (found := first_address_anywhere(part))), None)
    if isinstance(value, list):
        return next((found for part in value if (found := first_address_anywhere(part))), None)
    return value if isinstance(value, str) and value.startswith("https://") else None


def test_the_twin_that_takes_any_address_is_caught_with_the_input_image() -> None:
    payload = {"status": "completed", "input_params": {"image_url": INPUT}, "polling_url": SMALL, "video_url": CLIP}
    assert first_address_anywhere(payload) == INPUT
    assert read(payload).video_url == CLIP
