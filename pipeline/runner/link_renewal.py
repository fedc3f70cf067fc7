"""The renewal of a video's link: a free poll, which may name another one."""

from __future__ import annotations

from functools import partial

from pipeline.gateway.classification import PollOutcomeKind
from pipeline.gateway.responses import NoResponse, Response
from pipeline.runner.context import ReadyVideo, RunContext
from pipeline.runner.free_poll import own_outcome, poll_in_turn


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
