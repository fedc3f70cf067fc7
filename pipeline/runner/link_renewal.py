"""The renewal of a video's link: a free poll, which may name another one, or the first one."""

from __future__ import annotations

from functools import partial

from pipeline.gateway.classification import PollOutcomeKind
from pipeline.gateway.responses import NoResponse, Response
from pipeline.ledger.states import Event
from pipeline.records import Attempt, State
from pipeline.runner.context import ReadyVideo, RunContext
from pipeline.runner.free_poll import own_outcome, poll_in_turn

NO_RESULT = "no_result: "
"""Begins the reason of a failed request whose job the gateway called done without naming a video. Source: wire,
point 5. Its job is paid, so it is asked for again before anything is bought again."""

MIN_AGE_TO_EXPIRE_S = 24 * 3600.0
"""Seconds after a job's end before a link that gives something else than a video counts as dead: a store's page about
its maintenance is such a thing too, and a run of the next night tries again."""


def is_link_hopeless(context: RunContext, video: ReadyVideo) -> bool:
    """Whether the gateway confirmed the link, long after the job's end: such a row would stay open for ever."""
    age_s = context.unix_time() - (video.finished_at or context.unix_time())
    return video.link_is_newest and age_s >= MIN_AGE_TO_EXPIRE_S


def may_have_video(attempt: Attempt) -> bool:
    """Whether a request without a video has one at the gateway: its link expired, or its finished job named none.

    MONEY: it is paid, so it is asked for before anything is bought again.
    """
    is_without_link = attempt.state is State.FAILED and (attempt.reason or "").startswith(NO_RESULT)
    return attempt.state is State.EXPIRED or is_without_link


async def find_link(context: RunContext, video: ReadyVideo) -> bool:
    """Ask once for the link of a job that the gateway called done without naming a video.

    Returns:
        Whether `video` has its link now; the request is `done` then, and else failed as before.
    """
    was_answered = await renew_link(context, video)
    if video.video_url:
        video.was_expired = False
        values = {"video_url": video.video_url, "reason": None}
        await context.recorder.record(video.request_id, Event.COMPLETE, values)
    elif was_answered:
        reason = f"{NO_RESULT}asked again, and the gateway names no video"
        await context.recorder.record(video.request_id, Event.NOTE, {"reason": reason})
    else:
        context.notify(f"{video.row_id}: paid, and no poll was answered; run again to ask for its video")
    return bool(video.video_url)


async def renew_link(context: RunContext, video: ReadyVideo) -> bool:
    """Poll for the newest link of a finished job and keep it in `video`.

    Returns:
        True when the gateway answered for this job, or knows it under none of its addresses: there is no newer link.
        False when it gave no clear answer (an error, a limit, a closed connection) or the run stopped.
    API: dialect and address vary independently, so a 404 is asked again in the other styles, as the poller does.
    """
    for style in context.kind.poll_styles:
        polled = await poll_in_turn(context, video.job_set_id, partial(_poll, context, video, style))
        if polled is None:
            return False
        outcome = own_outcome(context, video.request_id, polled)
        if outcome.report is not None:
            video.video_url = context.client.video_address(outcome.report) or video.video_url
            return True
        if outcome.kind is not PollOutcomeKind.NOT_FOUND:
            return False
    return True


async def _poll(context: RunContext, video: ReadyVideo, style: str) -> Response | NoResponse:
    return await context.client.poll(video.job_set_id, video.polling_url, style)
