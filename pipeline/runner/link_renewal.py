"""The renewal of a video's link: a free poll, which may name another one."""

from __future__ import annotations

from pipeline.gateway.classification import PollOutcomeKind
from pipeline.gateway.ratelimit.limiter import CallKind
from pipeline.runner.context import ReadyVideo, RunContext
from pipeline.runner.poll_outcomes import poll_feedback


async def renew_link(context: RunContext, video: ReadyVideo) -> bool:
    """Poll for the newest link of a finished job and keep it in `video`.

    Returns:
        True when the gateway answered for this job, or knows it under none of its addresses: there is no newer link.
        False when it gave no clear answer (an error, a limit, a closed connection) or the run stopped.
    API: dialect and address vary independently, so a 404 is asked again in the other styles, as the poller does.
    """
    for style in context.kind.poll_styles:
        if await context.gate.slot(CallKind.POLL) is None:
            return False
        ticket = context.gate.sent(CallKind.POLL)
        answer = await context.client.poll(video.job_set_id, video.polling_url, style)
        outcome = context.kind.classify_poll(answer, now_unix=context.unix_time(), job_set_id=video.job_set_id)
        context.gate.answered(ticket, poll_feedback(outcome), outcome.wait_s)
        if outcome.report is not None:
            video.video_url = context.client.video_address(outcome.report) or video.video_url
            return True
        if outcome.kind is not PollOutcomeKind.NOT_FOUND:
            return False
    return True
