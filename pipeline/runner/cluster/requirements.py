"""What must hold before a cluster spends: the extra, a shared ledger, one gateway for all, one place for the videos."""

from __future__ import annotations

from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.runner.cluster.optional_packages import check_installed


def database(settings: Settings) -> str:
    """The URL of the database that all hosts share.

    Raises:
        UsageError: the settings are not those of a cluster; says what to set. Nothing was sent.
    """
    check_installed()
    url = settings.ledger.url
    if url is None:
        raise UsageError("several machines need a ledger that all of them reach: set ledger.url to a PostgreSQL server")
    if settings.gateway.is_embedded:
        raise UsageError(
            "several machines need one gateway: the embedded sandbox lives in one process. Start `dop sandbox serve` "
            "and set gateway.base_url to what it prints"
        )
    if settings.outputs.url is None and not settings.cluster.shared_outputs:
        raise UsageError(
            f"the videos of several machines belong in one place: set outputs.dir to an object store (s3://bucket/..), "
            f"or say with cluster.shared_outputs=true that {settings.outputs.dir} is one folder for all of them"
        )
    if settings.on_unknown.policy != "hold":
        raise UsageError("on_unknown.policy: resend is not for a cluster; use hold, and `dop resolve` where it is due")
    return url
