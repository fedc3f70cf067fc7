"""The settings a run is made with: one frozen section a topic, each value checked, in its unit. No I/O.

A section takes the texts of a configuration file, of the environment or of a flag alike ("30s", "7.00", "10/1m"), and
holds numbers: seconds, micro-dollars, bytes. It must never hold the key of the gateway.
Limits that are ours are constants here; those of the API are in the API document's pages.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from pipeline.config import video_names
from pipeline.config.loss_limit import parse_loss_limit
from pipeline.config.units import duration_s, size_bytes
from pipeline.records import microusd

SANDBOX = "sandbox"
"""`gateway.base_url` that starts the embedded sandbox, and the gateway id of everything rehearsed there."""

DOCUMENT_PRICES_MICROUSD = MappingProxyType({"dop-lite": 135_000, "dop-preview": 573_000, "dop-turbo": 416_000})
"""Price of one 5 s 1080p video. Source: API document, "Higgsfield DoP API Pricing"."""

_RATE = re.compile(r"[1-9][0-9]*/([1-9][0-9]*)?[smh]")
_VISIBLE = re.compile(r"[!-~]+")
MAX_PORT = 65535
_PATH = re.compile(r"/[^\s?#]*")
_STORE_FOLDER = re.compile(r"(?:s3|gs|az)://[^\s/?#@]+(?:/[^\s/?#@]+)*/?")

LOOPBACK = "127.0.0.1"
"""The name of this machine in a gateway's name, whichever way its address is written."""


def is_loopback(host: str) -> bool:
    """Whether connections to `host` stay on this machine, going by its name alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return without_final_dot(host.lower()) == "localhost"


def without_final_dot(host: str) -> str:
    """`example.com.` is the full name of `example.com`, and the same host."""
    return host.removesuffix(".")


def _duration(value: object) -> object:
    return duration_s(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return size_bytes(value) if isinstance(value, str) else value


def _money(value: object) -> object:
    """MONEY: a float never becomes an amount; configuration files hand over the digits as written."""
    if isinstance(value, str):
        return microusd(value.strip())
    raise ValueError("is not an amount in dollars")


def _prices(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("must hold a price for each model")
    return {model: _money(price) for model, price in value.items()}


def _listed(value: object) -> object:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError("must name at least one, e.g. [dop-lite, dop-turbo]")
    return [part.strip() for part in parts]


def _folders(value: object) -> object:
    """Folders in a list, or separated by commas; none is an empty list."""
    if value is None or value == "":
        return []
    return [str(Path(part).expanduser()) for part in _listed(value)]  # type: ignore[attr-defined]


def _rate(text: str) -> str:
    if text != "auto" and not _RATE.fullmatch(text):
        raise ValueError(f"{text!r} is not a rate: write auto or e.g. 10/1m, 5/1s, 600/1h")
    return text


def _poll_rate(text: str) -> str:
    return text if text == "shared" else _rate(text)


def _none_if(word: str) -> BeforeValidator:
    """`word` says in a file what null says: let the program decide, or no limit."""
    return BeforeValidator(lambda value: None if value == word else value)


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError("must begin with / and hold no space, ? or #")
    return text


def ledger_url(text: str) -> str:
    """The URL of a PostgreSQL database, as libpq takes it; the password may come from PGPASSWORD or ~/.pgpass.

    Raises:
        ValueError: it is none. The message never repeats it.
    """
    parts = urlsplit(text if _VISIBLE.fullmatch(text) else "")
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must be an address such as postgresql://dop@db.example:5432/dop")
    place = f"{parts.path}{parts.query}{parts.fragment}"
    if "@" in place or ":" in parts.path or parts.fragment or parts.netloc.count("@") > 1:
        raise ValueError("has a password with a special letter: write it as %40 for @, %2F for /, %3A for :, %23 for #")
    if re.search(r"%(?![0-9a-fA-F]{2})|%00", text):
        raise ValueError("has a % that begins no escape: write a % of the password as %25")
    if "pass" in unquote(parts.query).lower():
        raise ValueError("must not have its password among the options: write USER:PASSWORD@HOST, or set PGPASSWORD")
    if not parts.path.strip("/"):
        raise ValueError("must name the database: postgresql://dop@db.example:5432/DATABASE")
    # libpq knows the scheme in small letters only, and repeats what it takes for no address.
    return f"{parts.scheme}{text[len(parts.scheme) :]}"


def _folder(text: str) -> str:
    if re.match(r"[a-z0-9]+:/", text) and not _STORE_FOLDER.fullmatch(text):
        stores = "s3://bucket/folder, gs://bucket/folder, az://container/folder"
        raise ValueError(f"must be a folder of this machine, or {stores}")
    return text.rstrip("/") or text


def _local_folder(path: Path) -> Path:
    if re.match(r"[a-z0-9]+:/", str(path)):
        raise ValueError("must be a folder of this machine")
    return path


def _origin(text: str) -> SplitResult:
    """The parts of a gateway's address; text that could carry a secret is never repeated in the error."""
    parts = urlsplit(text if _VISIBLE.fullmatch(text) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("must be `sandbox` or an address such as https://gateway.example")
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must be scheme, host and port only: the paths have keys of their own")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: the key would travel in clear (http is for this machine only)")
    return parts


def _base_url(text: str) -> str:
    if text == SANDBOX:
        return text
    parts = _origin(text)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{_bracketed(without_final_dot(parts.hostname or ''))}{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(text: str) -> str:
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:]+\]|[^\s:]+):([0-9]{1,5})", text)
    if match is None or int(match[1]) > MAX_PORT:
        raise ValueError("must be HOST:PORT, e.g. 127.0.0.1:8099")
    return text


def _public_url(text: str) -> str:
    parts = urlsplit(text if _VISIBLE.fullmatch(text) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("must be an address such as https://hooks.example.com")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must be scheme, host, port and path only")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: tokens and secrets would travel in clear (http is for this machine only)")
    return text.rstrip("/")


def _signing_secret(text: str) -> str:
    """A secret in the form of Standard Webhooks; the error never repeats it."""
    try:
        base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise ValueError("must be a secret of Standard Webhooks: whsec_ and base64") from None
    return text


Seconds = Annotated[float, BeforeValidator(_duration), Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
MicroUsd = Annotated[int, BeforeValidator(_money)]
MAX_COUNT = 10_000_000
"""Largest count that a setting takes: ten times the largest batch tried. A larger one is a slip of the keyboard."""

MAX_WORKERS = 1_024
"""Most calls or downloads at a time: each takes a file handle, and many systems give a process 1,024."""

Positive = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Workers = Annotated[int, Field(ge=1, le=MAX_WORKERS)]


def _loss_limit(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("is no limit of unknown outcomes: write a number of rows, or dollars, e.g. 0.50")
    parse_loss_limit(str(value))
    return str(value)


RateText = Annotated[str, AfterValidator(_rate)]
VideoName = Annotated[str, AfterValidator(video_names.checked)]
UrlPath = Annotated[str, AfterValidator(_path)]


class SettingsSection(BaseModel):
    """What all sections share: frozen, closed, and silent about values in its errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class GatewaySettings(SettingsSection):
    """Where requests go. Paths of the API document; `motions_path` is inferred."""

    base_url: Annotated[str, AfterValidator(_base_url)] = SANDBOX
    submit_path: UrlPath = "/ai-model-api/v1/generateImageToVideoRequest"
    poll_path: UrlPath = "/ai-model-api-polling/getGenerationResults"
    motions_path: UrlPath = "/ai-model-api-polling/motions"
    connect_timeout_s: Seconds = 10.0
    read_timeout_s: Seconds = 330.0

    @property
    def is_embedded(self) -> bool:
        """Whether the run starts its own sandbox; any other gateway is live."""
        return self.base_url == SANDBOX


class PaceSettings(SettingsSection):
    """How fast submits go. `max_in_flight` None: no cap but the gateway's own, which is learned."""

    rate: RateText = "auto"
    burst: Annotated[Positive | None, _none_if("auto")] = None
    max_in_flight: Annotated[Positive | None, _none_if("auto")] = None
    submit_concurrency: Workers = 16


class PollSettings(SettingsSection):
    """When to look for a video. `max_lag_s` None: as late as a shared limit makes cheap."""

    first_s: Seconds = 15.0
    min_s: Seconds = 3.0
    max_s: Seconds = 60.0
    deadline_s: Seconds = 1200.0
    max_lag_s: Annotated[Seconds | None, _none_if("auto")] = None
    rate: Annotated[str, AfterValidator(_poll_rate)] = "auto"

    @model_validator(mode="after")
    def _ordered(self) -> PollSettings:
        if self.min_s > self.max_s:
            raise ValueError("min_s is above max_s")
        return self


class DownloadSettings(SettingsSection):
    """How videos come down."""

    enabled: bool = True
    concurrency: Workers = 4
    max_bytes: Bytes = 512_000_000
    name: VideoName | None = None


class BudgetSettings(SettingsSection):
    """What may be spent; None is no cap. The lowest of manifest, configuration and flag holds."""

    max_cost_microusd: MicroUsd | None = Field(default=None, alias="max_cost")
    per_day_microusd: MicroUsd | None = Field(default=None, alias="per_day")
    per_month_microusd: MicroUsd | None = Field(default=None, alias="per_month")


class OutputSettings(SettingsSection):
    """Where a run leaves its folder: `text` is a folder of this machine, or one of an object store.

    With a store, everything is made in `staging` first, and the ledger stays there.
    """

    configured: Annotated[str, BeforeValidator(str), AfterValidator(_folder)] = Field(default="outputs", alias="dir")
    staging: Annotated[Path, AfterValidator(_local_folder)] = Path("outputs")
    endpoint: Annotated[str, AfterValidator(_public_url)] | None = None
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = None

    @property
    def url(self) -> str | None:
        """The object store's folder; None where the outputs are local."""
        return self.configured if _STORE_FOLDER.fullmatch(self.configured) else None

    @property
    def dir(self) -> Path:
        """The folder of this machine that runs are made in."""
        return self.staging if self.url is not None else Path(self.configured)


class LedgerSettings(SettingsSection):
    """Where the ledger is: a file (default: `ledger.db` in the outputs folder) or a database's URL."""

    path: Path | None = None
    url: Annotated[str, AfterValidator(ledger_url)] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> LedgerSettings:
        if self.path is not None and self.url is not None:
            raise ValueError("path and url are two ledgers: give one")
        return self


class UnknownSettings(SettingsSection):
    """What becomes of a submit whose outcome is unknown. `resend` may pay twice, up to `max_cost` in a run.

    `max`: how many rows, or how much money, may be unknown before nothing more is bought; None is a share of the batch.
    """

    policy: Literal["hold", "resend"] = "hold"
    max_cost_microusd: MicroUsd | None = Field(default=None, alias="max_cost")
    max: Annotated[str, BeforeValidator(_loss_limit)] | None = None

    @model_validator(mode="after")
    def _capped(self) -> UnknownSettings:
        if self.policy == "resend" and self.max_cost_microusd is None:
            raise ValueError("policy resend needs max_cost: what may be paid twice at most")
        return self


class WebhookSettings(SettingsSection):
    """The callback receiver: `listen` is HOST:PORT, `public_url` what the gateway calls (perhaps with a path).

    `signing_secret` (`whsec_...`) belongs to the account at the upstream vendor and verifies its signatures. It is a
    secret: it comes from the environment only, and no message shows it.
    """

    listen: Annotated[str, AfterValidator(_listen)] | None = None
    public_url: Annotated[str, AfterValidator(_public_url)] | None = None
    signing_secret: Annotated[str, AfterValidator(_signing_secret)] | None = None


class ImageSettings(SettingsSection):
    """Whether images are probed before they are paid for. `auto`: unless the gateway is on this machine.

    `allow` names the folders outside a manifest's own that its pictures may come from: a manifest may be another
    person's, and its pictures are uploaded.
    """

    preflight: Literal["auto", "always", "never"] = "auto"
    allow: Annotated[tuple[Path, ...], BeforeValidator(_folders)] = ()


class UploadSettings(SettingsSection):
    """Where local images are put for a live gateway: a folder of an object store, and how the gateway may read there.

    Without `public_base` addresses are signed. `max_px` None: pictures keep their size. Credentials never stand here.
    """

    url: Annotated[str, Field(pattern=r"^(s3|gs|az)://[^\s/?#@]+(/[^\s?#@]*)?$")] | None = None
    endpoint: Annotated[str, AfterValidator(_public_url)] | None = None
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = None
    public_base: Annotated[str, AfterValidator(_public_url)] | None = None
    presign_expiry_s: Annotated[Seconds, Field(ge=600, le=604_800)] = 6 * 3600.0
    max_px: Annotated[int, Field(ge=64)] | None = None


class ClusterSettings(SettingsSection):
    """Workers on several machines. `holds` requests at most in one worker, `window` queued at most for a gateway.

    `shared_outputs` says that `outputs.dir` is one folder for all hosts. A worker silent for `stalled_after` is dead.
    """

    shared_outputs: bool = False
    holds: Positive = 5_000
    window: Positive = 20_000
    stalled_after_s: Annotated[float, BeforeValidator(_duration), Field(ge=3, allow_inf_nan=False)] = 30.0


class ScheduleSettings(SettingsSection):
    """A run that the workers of a cluster start on a schedule: `cron` has 5 fields, or 6 with seconds last; UTC."""

    cron: Annotated[str, Field(pattern=r"^\s*\S+(\s+\S+){4,5}\s*$")] | None = None
    manifest: Path | None = None

    @model_validator(mode="after")
    def _both(self) -> ScheduleSettings:
        if (self.cron is None) != (self.manifest is None):
            raise ValueError("cron and manifest belong together: give both or neither")
        return self


CHECK_KINDS = (
    "unreadable",
    "format",
    "small",
    "black",
    "flash",
    "cut",
    "strobe",
    "frozen",
    "still",
    "flicker",
    "wrong_start",
    "wrong_end",
    "soft",
    "color_drift",
    "duplicate",
    "loop_seam",
)
"""The defects that a check of a clip can find."""

ALL_KINDS = "all"


def _kinds(value: object) -> object:
    """A list of kinds, `all`, or nothing."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be a list of kinds, or all")
    kinds = tuple(part.strip().strip("[]") for part in parts if part.strip().strip("[]"))
    for kind in kinds:
        if kind not in (*CHECK_KINDS, ALL_KINDS):
            raise ValueError(f"{kind!r} is no kind of defect; known: {', '.join(CHECK_KINDS)}, or all")
    return kinds


class CheckSettings(SettingsSection):
    """The checks of clips. `fail_on`: kinds that count as failures of the run; `small`: also report clips below 700 px.

    `max_cpu_s` is for one clip, decoding included.
    """

    enabled: bool = True
    fail_on: Annotated[tuple[str, ...], BeforeValidator(_kinds)] = ()
    max_cpu_s: Seconds = 5.0
    small: bool = False


class EmbeddedSandboxSettings(SettingsSection):
    """The embedded sandbox, as `dop sandbox serve` has it. The key is no secret; `data` None: beside the ledger."""

    key: str = "sandbox-key"
    dialect: Literal["job-set", "queue"] = "job-set"
    rate: RateText | None = None
    limiter: Literal["bucket", "fixed", "sliding"] = "bucket"
    shared_limit: bool = False
    max_concurrent: Positive | None = None
    retry_after: Literal["yes", "no", "misleading"] = "yes"
    generation_s: Annotated[float, BeforeValidator(_duration), Field(ge=0)] = 2.0
    size: Literal["180p", "240p", "360p", "480p", "540p", "720p", "1080p"] = "240p"
    data: Path | None = None
    chaos: str | None = None
    chaos_intensity: Annotated[float, Field(ge=0, le=1)] = 1.0
    defects: Annotated[float, Field(ge=0)] = 0.0


class Settings(SettingsSection):
    """All settings of a run besides its manifest. `sources` names where each value came from."""

    gateway: GatewaySettings = GatewaySettings()
    pace: PaceSettings = PaceSettings()
    poll: PollSettings = PollSettings()
    download: DownloadSettings = DownloadSettings()
    budget: BudgetSettings = BudgetSettings()
    outputs: OutputSettings = OutputSettings()
    ledger: LedgerSettings = LedgerSettings()
    on_unknown: UnknownSettings = UnknownSettings()
    webhook: WebhookSettings = WebhookSettings()
    images: ImageSettings = ImageSettings()
    uploads: UploadSettings = UploadSettings()
    checks: CheckSettings = CheckSettings()
    sandbox: EmbeddedSandboxSettings = EmbeddedSandboxSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    cluster: ClusterSettings = ClusterSettings()
    defaults: Mapping[str, object] = Field(default_factory=dict)
    prices_microusd: Annotated[Mapping[str, int], BeforeValidator(_prices)] = Field(
        default_factory=lambda: dict(DOCUMENT_PRICES_MICROUSD), alias="prices"
    )
    models: Annotated[tuple[str, ...], BeforeValidator(_listed)] = tuple(DOCUMENT_PRICES_MICROUSD)

    _sources: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> Mapping[str, str]:
        """`section.key` -> "flag", "environment NAME", "FILE:LINE" or "default"."""
        return self._sources

    @property
    def ledger_path(self) -> Path:
        """The ledger's file, where `ledger.url` is not set."""
        return self.ledger.path or self.outputs.dir / "ledger.db"


def gateway_id(settings: Settings) -> str:
    """The name under which purchases at this gateway are kept: `sandbox`, else scheme://host:port (port always).

    The paths do not enter it: an address books what it books, by whichever path it was asked.
    """
    return SANDBOX if settings.gateway.is_embedded else canonical_gateway(settings.gateway.base_url)


def origin_of(address: str) -> str:
    """The one name of a gateway's address: `scheme://host:port`, the port always written out.

    Raises:
        ValueError: it is no address that the key may go to.
    """
    _origin(address)
    return canonical_gateway(address)


def canonical_gateway(name: str) -> str:
    """The one name of a gateway, however its address is written.

    `localhost`, `127.0.0.1` and `[::1]` with one port are one gateway, and so is a host with a final dot. What is no
    address (`sandbox`, a damaged name) stays as it is.
    """
    try:
        parts = urlsplit(name)
        port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    except (KeyError, ValueError):
        return name
    return f"{parts.scheme}://{_bracketed(_canonical_host(without_final_dot(parts.hostname or '')))}:{port}"


def _canonical_host(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return LOOPBACK if host == "localhost" else host
    mapped = getattr(address, "ipv4_mapped", None) or address
    return LOOPBACK if str(mapped) in ("::1", LOOPBACK) else str(mapped)
