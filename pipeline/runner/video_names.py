"""Names the files of a run's videos by the user's template; two videos never get one name."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.video_names import SUFFIX, rendered
from pipeline.ledger.queries import LedgerQueries
from pipeline.records import Attempt
from pipeline.runner.context import ReadyVideo


class VideoNames:
    """The names of one run.

    Args:
        shared: whether other processes fetch videos of the same run, so that every name carries its request.
    """

    def __init__(self, template: str, queries: LedgerQueries, run_id: str, *, shared: bool = False) -> None:
        self._template = template
        self._queries = queries
        self._run_id = run_id
        self._shared = shared
        self._owners = {Path(path).name: request_id for request_id, path in queries.files(run_id)}

    def name_of(self, video: ReadyVideo) -> str:
        """The name of a video's file; one that is taken gets the first digits of the request as well."""
        attempt = self._queries.latest(self._run_id, video.request_id)
        name = rendered(self._template, _values(attempt, video))
        if self._shared or self._owners.get(name, video.request_id) != video.request_id:
            name = f"{name.removesuffix(SUFFIX)}-{video.request_id[:8]}{SUFFIX}"
        self._owners[name] = video.request_id
        return name


def _values(attempt: Attempt, video: ReadyVideo) -> dict[str, object]:
    params = attempt.params
    row, at, _ = video.row_id.rpartition("@")
    return {
        "id": row if at and attempt.axes else video.row_id,
        "cell": video.row_id,
        "seed": params.seed,
        "model": params.model,
        "motion": attempt.motion or params.motions_id[:8],
        "strength": f"{params.strength_hundredths / 100:g}",
        "take": video.take,
    }
