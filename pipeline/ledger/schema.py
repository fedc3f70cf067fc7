"""The ledger's tables and the checksum of a row. No connection is opened here.

One row of `attempts` is one attempt to buy one request. The columns that money and resume depend on are HOT: they are
read and written with every event and covered by `checksum`. What a request says (COLD) is written once and covered by
`digest`, which the checksum covers in turn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from sys import intern
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from pipeline.records import Params

SCHEMA_VERSION = 4
"""Version of the tables; a ledger of an older one is migrated, one of a newer one is not opened."""

metadata = MetaData()

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("manifest_path", Text, nullable=False),
    # What the rows depended on when they were listed: with the same digest the manifest is not read again. NULL after a
    # repair, so that it is.
    Column("rows_digest", Text),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("sheet", Text),
    Column("caps", Text),
    Index("runs_by_manifest", "manifest_path", "gateway"),
)

run_rows = Table(
    "run_rows",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("row_id", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("axes", Text, nullable=False),
    # 0 while the manifest is read again, and afterwards for bought rows that it names no longer.
    Column("listed", Integer, nullable=False),
    Column("shot", Text),
    Column("wanted", Integer, nullable=False, server_default="1"),
    PrimaryKeyConstraint("run_id", "request_id"),
    Index("run_rows_in_order", "run_id", "position"),
)
Index(
    "run_rows_by_shot",
    run_rows.c.run_id,
    run_rows.c.shot,
    sqlite_where=run_rows.c.shot.is_not(None),
    postgresql_where=run_rows.c.shot.is_not(None),
)

"""`shot` says of a candidate which shot it is for (see `shots`), `wanted` whether it is to be bought: 0 for a spare."""

attempts = Table(
    "attempts",
    metadata,
    Column("request_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    # 0 for the newest attempt of a request, 1 for those before it.
    Column("superseded", Integer, nullable=False),
    Column("gateway", Text, nullable=False),
    # The run that bought it, or planned it first. What other runs list as well is in `run_rows`.
    Column("run_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    # As planned until RESERVE, as reserved from then on; 0 where the gateway does not charge a failed job.
    Column("price_microusd", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    # Names one POST. Its outcome is recorded under this token only, however late it comes.
    Column("token", Text),
    # The same for each POST of one attempt, so that a gateway that honours it charges once.
    Column("idempotency_key", Text),
    Column("job_set_id", Text),
    Column("polling_url", Text),
    Column("video_url", Text),
    Column("preview_url", Text),
    Column("local_path", Text),
    Column("size_bytes", BigInteger),
    Column("sha256", Text),
    # POSTs so far, how often the rate limit refused one, polls, and POSTs after an unknown outcome.
    Column("submit_attempts", Integer, nullable=False),
    Column("throttled", Integer, nullable=False),
    Column("polls", Integer, nullable=False),
    Column("resends", Integer, nullable=False),
    # The UTC day whose budget the purchase counts against; an outcome on a later day leaves it.
    Column("spend_day", Text),
    Column("submitted_at", Float),
    Column("accepted_at", Float),
    Column("finished_at", Float),
    Column("reason", Text),
    Column("digest", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("row_id", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("motion", Text, nullable=False),
    Column("take", Integer, nullable=False),
    PrimaryKeyConstraint("request_id", "attempt"),
    # MONEY: one job belongs to one request, and the database itself refuses a second owner.
    UniqueConstraint("gateway", "job_set_id", name="one_owner_per_job"),
    Index("attempts_by_state", "state"),
    Index("attempts_by_run", "run_id"),
)

journal = Table(
    "journal",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=True),
    Column("seq", BigInteger, nullable=False),
    Column("line", Text, nullable=False),
)
"""The second book of a ledger on PostgreSQL; one in a file keeps it beside the database instead."""

ON_SERVERS_ONLY = (journal,)

IMMUTABLE = ("row_id", "params", "motion", "take")
MUTABLE = tuple(column.name for column in attempts.columns if column.name not in IMMUTABLE)
COVERED = tuple(name for name in MUTABLE if name != "checksum")

history = Table(
    "history",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("request_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("event", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("history_by_request", "request_id"),
)

spend = Table(
    "spend",
    metadata,
    Column("gateway", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("confirmed", BigInteger, nullable=False),
    Column("disputed", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    PrimaryKeyConstraint("gateway", "run_id", "day", "model"),
    Index("spend_by_day", "gateway", "day"),
)


reviews = Table(
    "reviews",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("request_id", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("verdict", Text),
    Column("stars", Integer),
    Column("note", Text),
    Column("rival", Text),
    Column("duel", Integer),
    Index("reviews_by_request", "request_id"),
)
"""What reviewers said of clips, append-only: one row a change, and a column that is NULL was not changed by it.

`duel` is 1 where the clip was preferred to `rival`, -1 where that is taken back. No money depends on it, so it has no
number in the chain of events; see `reviews`.
"""


clip_checks = Table(
    "clip_checks",
    metadata,
    Column("request_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("grade", Text, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("request_id", "attempt"),
)
"""What the checks found in the clip of an attempt, as the newest run saw it: what is bought next follows from it."""


def checksum(row: Mapping[str, object]) -> str:
    """16 hex digits over the covered columns of one attempt; a flipped bit in any of them changes it."""
    return hash_of(repr([row[name] for name in COVERED]))


def digest(row: Mapping[str, object]) -> str:
    """16 hex digits over the columns that are written once."""
    return hash_of(repr([row[name] for name in IMMUTABLE]))


def hash_of(values_text: str) -> str:
    """16 hex digits over the `repr` of a list of values; `checksum` and `digest` say which."""
    return hashlib.blake2b(values_text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


_PARAM_NAMES = (
    "model",
    "prompt",
    "seed",
    "motions_id",
    "strength_hundredths",
    "input_images",
    "input_images_end",
    "enhance_prompt",
    "check_nsfw",
)


def dump_params(params: Params) -> str:
    """The paid fields as one JSON list, in a fixed order."""
    return json.dumps([getattr(params, name) for name in _PARAM_NAMES], ensure_ascii=False, separators=(",", ":"))


def load_params(text: str) -> Params:
    """The inverse of `dump_params`."""
    model, prompt, seed, motions_id, strength, images, images_end, enhance, nsfw = json.loads(text)
    if not isinstance(prompt, str) or not isinstance(seed, int):
        raise ValueError(f"no prompt and seed in {text!r}")
    example = _example(
        model=model,
        motions_id=motions_id,
        strength_hundredths=strength,
        input_images=tuple(images),
        input_images_end=tuple(images_end),
        enhance_prompt=enhance,
        check_nsfw=nsfw,
    )
    return example.varied(prompt=intern(prompt), seed=seed)  # many takes of one shot have one prompt


@lru_cache(maxsize=4_096, typed=True)
def _example(**fields: Any) -> Params:
    """Params that were checked, of which a run has few kinds; `Params.varied` puts prompt and seed in."""
    return Params(prompt="example", seed=1, **fields)
