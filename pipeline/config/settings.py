"""The settings a run is made with: one frozen section a topic, each value checked, in its unit. No I/O.

A section takes the texts of a configuration file, of the environment or of a flag alike ("30s", "7.00", "10/1m"), and
holds numbers: seconds, micro-dollars, bytes. It must never hold the key of the gateway.
Limits that are ours are constants here; those of the API are in the API document's pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from pipeline.config.gateway_address import SANDBOX, canonical_gateway
from pipeline.config.setting_types import (
    AUTO_IS_NONE,
    BaseUrl,
    Bytes,
    CheckKinds,
    CommandLine,
    Duration,
    Folder,
    KindName,
    LedgerUrl,
    ListenAddress,
    LocalFolder,
    LossLimit,
    MicroUsd,
    ModelId,
    Names,
    NotifyUrl,
    PictureFolders,
    PollRateText,
    Positive,
    Prices,
    PublicUrl,
    RateText,
    Region,
    Seconds,
    Seeds,
    SigningSecret,
    StoreUrl,
    UrlPath,
    VideoName,
    Workers,
    is_store_folder,
)

DOCUMENT_PRICES_MICROUSD = MappingProxyType({"dop-lite": 135_000, "dop-preview": 573_000, "dop-turbo": 416_000})
"""Price of one 5 s 1080p video. Source: API document, "Higgsfield DoP API Pricing"."""

PIXAZO = "pixazo"
"""The default of `gateway.kind`: the gateway of the API document."""

KIND_PRICES_MICROUSD: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        PIXAZO: DOCUMENT_PRICES_MICROUSD,
        "higgsfield": MappingProxyType({"dop-lite": 125_000, "dop-preview": 562_500, "dop-turbo": 406_250}),
    }
)
"""Default prices by kind. Source of the vendor's: seen (2, 9 and 6.5 credits at 16 a dollar, 2025-11); the vendor's own
estimate is the authority (official)."""


class SettingsSection(BaseModel):
    """What all sections share: frozen, closed, and silent about values in its errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class GatewaySettings(SettingsSection):
    """Where requests go. `kind` says whose API it is (pipeline/gateway/kinds).

    The paths are those of the API document; `motions_path` is inferred.
    """

    kind: KindName = PIXAZO
    base_url: BaseUrl = SANDBOX
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
    burst: Annotated[Positive | None, AUTO_IS_NONE] = None
    max_in_flight: Annotated[Positive | None, AUTO_IS_NONE] = None
    submit_concurrency: Workers = 16


class PollSettings(SettingsSection):
    """When to poll for a video. `max_lag_s` None: as late as a shared limit makes cheap."""

    first_s: Seconds = 15.0
    min_s: Seconds = 3.0
    max_s: Seconds = 60.0
    deadline_s: Seconds = 1200.0
    max_lag_s: Annotated[Seconds | None, AUTO_IS_NONE] = None
    rate: PollRateText = "auto"

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

    configured: Folder = Field(default="outputs", alias="dir")
    staging: LocalFolder = Path("outputs")
    endpoint: PublicUrl | None = None
    region: Region | None = None

    @property
    def url(self) -> str | None:
        """The object store's folder; None where the outputs are local."""
        return self.configured if is_store_folder(self.configured) else None

    @property
    def dir(self) -> Path:
        """The folder of this machine that runs are made in."""
        return self.staging if self.url is not None else Path(self.configured)


class LedgerSettings(SettingsSection):
    """Where the ledger is: a file (default: `ledger.db` in the outputs folder) or a database's URL."""

    path: Path | None = None
    url: LedgerUrl | None = None

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
    max: LossLimit | None = None

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

    listen: ListenAddress | None = None
    public_url: PublicUrl | None = None
    signing_secret: SigningSecret | None = None


class NotifySettings(SettingsSection):
    """Who is notified at the end of a run, and when it needs the operator. Both get one JSON object.

    `command` reads it from stdin; `url` gets it as a POST. Neither may take longer than `timeout_s`.
    """

    command: CommandLine | None = None
    url: NotifyUrl | None = None
    timeout_s: Seconds = 10.0


class ImageSettings(SettingsSection):
    """Whether images are probed before they are paid for. `auto`: unless the gateway is on this machine.

    `allow` names the folders outside a manifest's own that its pictures may come from: a manifest may be another
    person's, and its pictures are uploaded.
    """

    preflight: Literal["auto", "always", "never"] = "auto"
    allow: PictureFolders = ()


class UploadSettings(SettingsSection):
    """Where local images are put for a live gateway: a folder of an object store, and how the gateway may read there.

    Without `public_base` addresses are signed. `max_px` None: pictures keep their size. Credentials never stand here.
    """

    url: StoreUrl | None = None
    endpoint: PublicUrl | None = None
    region: Region | None = None
    public_base: PublicUrl | None = None
    presign_expiry_s: Annotated[Seconds, Field(ge=600, le=604_800)] = 6 * 3600.0
    max_px: Annotated[int, Field(ge=64)] | None = None


class ClusterSettings(SettingsSection):
    """Workers on several machines. `holds` requests at most in one worker, `window` queued at most for a gateway.

    `shared_outputs` says that `outputs.dir` is one folder for all hosts. A worker silent for `stalled_after` is dead.
    """

    shared_outputs: bool = False
    holds: Positive = 5_000
    window: Positive = 20_000
    stalled_after_s: Annotated[Duration, Field(ge=3, allow_inf_nan=False)] = 30.0


class ScheduleSettings(SettingsSection):
    """A run that the workers of a cluster start on a schedule: `cron` has 5 fields, or 6 with seconds last; UTC."""

    cron: Annotated[str, Field(pattern=r"^\s*\S+(\s+\S+){4,5}\s*$")] | None = None
    manifest: Path | None = None

    @model_validator(mode="after")
    def _both(self) -> ScheduleSettings:
        if (self.cron is None) != (self.manifest is None):
            raise ValueError("cron and manifest belong together: give both or neither")
        return self


class CheckSettings(SettingsSection):
    """The checks of clips. `fail_on`: kinds that count as failures of the run; `small`: also report clips below 700 px.

    `max_cpu_s` is for one clip, decoding included.
    """

    enabled: bool = True
    fail_on: CheckKinds = ()
    max_cpu_s: Seconds = 5.0
    small: bool = False


class EmbeddedSandboxSettings(SettingsSection):
    """The embedded sandbox, as `dop sandbox serve` has it. The key is no secret; `data` None: beside the ledger.

    `kind` None: the gateway's own (`gateway.kind`).
    """

    kind: Literal["pixazo", "higgsfield"] | None = None
    key: str = "sandbox-key"
    dialect: Literal["job-set", "queue"] = "job-set"
    rate: RateText | None = None
    limiter: Literal["bucket", "fixed", "sliding"] = "bucket"
    shared_limit: bool = False
    max_concurrent: Positive | None = None
    retry_after: Literal["yes", "no", "misleading"] = "yes"
    generation_s: Annotated[Duration, Field(ge=0)] = 2.0
    size: Literal["180p", "240p", "360p", "480p", "540p", "720p", "1080p"] = "240p"
    data: Path | None = None
    chaos: str | None = None
    chaos_intensity: Annotated[float, Field(ge=0, le=1)] = 1.0
    defects: Annotated[float, Field(ge=0)] = 0.0
    defect_seeds: Seeds = ()


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
    notify: NotifySettings = NotifySettings()
    images: ImageSettings = ImageSettings()
    uploads: UploadSettings = UploadSettings()
    checks: CheckSettings = CheckSettings()
    sandbox: EmbeddedSandboxSettings = EmbeddedSandboxSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    cluster: ClusterSettings = ClusterSettings()
    defaults: Mapping[str, object] = Field(default_factory=dict)
    prices_microusd: Prices = Field(default_factory=lambda: dict(DOCUMENT_PRICES_MICROUSD), alias="prices")
    models: Names = tuple(DOCUMENT_PRICES_MICROUSD)
    model_ids: Mapping[str, ModelId] = Field(default_factory=dict)

    _sources: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> Mapping[str, str]:
        """`section.key` -> "flag", "environment NAME", "FILE:LINE" or "default"."""
        return self._sources

    def with_sources(self, sources: Mapping[str, str]) -> Self:
        """These settings, once it is known where each value came from."""
        self._sources = MappingProxyType(dict(sources))
        return self

    @property
    def kind(self) -> str:
        """The kind of gateway: for a rehearsal the one that `sandbox.kind` names, if it does."""
        return (self.sandbox.kind if self.gateway.is_embedded else None) or self.gateway.kind

    @property
    def ledger_path(self) -> Path:
        """The ledger's file, where `ledger.url` is not set."""
        return self.ledger.path or self.outputs.dir / "ledger.db"


def gateway_id(settings: Settings) -> str:
    """The name under which purchases at this gateway are kept: `sandbox` (with its kind, unless it is the API
    document's), else scheme://host:port (port always).

    The paths do not enter it: an address charges what it charges, by whichever path it was asked.
    """
    if settings.gateway.is_embedded:
        return SANDBOX if settings.kind == PIXAZO else f"{SANDBOX}-{settings.kind}"
    return canonical_gateway(settings.gateway.base_url)
