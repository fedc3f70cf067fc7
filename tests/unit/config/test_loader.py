"""Configuration: what is read, from where, who wins, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import loader
from pipeline.config.gateway_address import is_loopback
from pipeline.config.loader import Settings, gateway_id, load, packaged, read_key
from pipeline.config.settings import EmbeddedSandboxSettings
from pipeline.config.units import duration_s, size_bytes
from pipeline.errors import ManifestError, UsageError
from pipeline.ledger.workspace import ledger_name
from pipeline.sandbox import settings as sandbox_settings

REPO = Path(__file__).resolve().parents[3]
CANARY = "canary-3f9c"


def read(
    tmp_path: Path, text: str = "", *, flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, overrides=flags or {}, environ=environ or {})


def mistakes(
    tmp_path: Path, text: str = "", *, flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, text, flags=flags, environ=environ)
    assert caught.value.exit_code == 2
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


# --- who wins ------------------------------------------------------------------------------------------------------


def test_an_empty_file_gives_the_defaults_and_the_sandbox(tmp_path: Path) -> None:
    settings = read(tmp_path, "# nothing\n")
    assert settings.gateway.is_embedded
    assert settings.poll.deadline_s == 1200
    assert settings.prices_microusd == {"dop-lite": 135_000, "dop-preview": 573_000, "dop-turbo": 416_000}
    assert set(settings.sources.values()) == {"default"}


@pytest.mark.parametrize(
    ("flags", "environ", "rate", "source"),
    [
        ({}, {}, "1/1s", "c.yaml:3"),
        ({}, {"DOP_PACE__RATE": "2/1s"}, "2/1s", "environment DOP_PACE__RATE"),
        ({"pace.rate": "3/1s"}, {"DOP_PACE__RATE": "2/1s"}, "3/1s", "flag"),
    ],
)
def test_flag_beats_environment_beats_file_and_the_value_knows_it(
    tmp_path: Path, flags: dict[str, str], environ: dict[str, str], rate: str, source: str
) -> None:
    settings = read(tmp_path, "pace:\n  burst: 2\n  rate: 1/1s\n", flags=flags, environ=environ)
    assert settings.pace.rate == rate
    assert settings.sources["pace.rate"].endswith(source)
    assert settings.sources["pace.submit_concurrency"] == "default"
    assert settings.pace.burst == 2


def test_a_section_that_holds_only_comments_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path, "budget:\n  # max_cost: 5\npoll:\n").budget.max_cost_microusd is None


def test_an_empty_value_takes_the_default_away_or_is_none(tmp_path: Path) -> None:
    settings = read(tmp_path, "budget: {max_cost: 5}\n", flags={"budget.max_cost": ""})
    assert settings.budget.max_cost_microusd is None


def test_a_model_name_with_dashes_can_be_priced_from_the_environment(tmp_path: Path) -> None:
    settings = read(tmp_path, environ={"DOP_PRICES__DOP_LITE": "0.2", "DOP_MODELS": "dop-lite, dop-new"})
    assert settings.prices_microusd["dop-lite"] == 200_000
    assert settings.models == ("dop-lite", "dop-new")


def test_a_model_name_with_a_dot_can_be_priced_by_flag(tmp_path: Path) -> None:
    assert read(tmp_path, flags={"prices.dop-2.1": "0.3"}).prices_microusd["dop-2.1"] == 300_000


def test_variables_of_other_programs_are_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, environ={"DOP_LEVEL": "x", "DOPAMINE": "1", "POLL__MIN_S": "1"}).poll.min_s == 3


# --- values --------------------------------------------------------------------------------------------------------


def test_money_is_the_digits_as_written(tmp_path: Path) -> None:
    settings = read(tmp_path, "budget: {max_cost: 0.1, per_day: 7.00, per_month: '1e2'}\nprices: {dop-lite: 0.135}\n")
    assert settings.budget.max_cost_microusd == 100_000
    assert settings.budget.per_day_microusd == 7_000_000
    assert settings.budget.per_month_microusd == 100_000_000


@settings(max_examples=25)
@given(st.integers(min_value=0, max_value=10**12))
def test_every_amount_of_whole_microdollars_is_read_exactly(amount: int) -> None:
    text = str(Decimal(amount).scaleb(-6))
    settings = load(packaged("default.yaml"), overrides={"budget.max_cost": text}, environ={})
    assert settings.budget.max_cost_microusd == amount


@pytest.mark.parametrize("text", ["-1", "five", "0.0000001", "nan", "inf", "[1]", "{a: 1}"])
def test_what_is_no_amount_is_refused(tmp_path: Path, text: str) -> None:
    (mistake,) = mistakes(tmp_path, f"budget:\n  max_cost: {text}\n")
    assert mistake.startswith("c.yaml:2:3: budget.max_cost: ")
    assert "is not an amount in dollars" in mistake


@pytest.mark.parametrize("text", ["1e30", "1000000001", "1" * 400])
def test_an_amount_that_no_database_can_add_up_is_refused(tmp_path: Path, text: str) -> None:
    (mistake,) = mistakes(tmp_path, f"prices:\n  dop-lite: {text}\n")
    assert "is more than $1,000,000,000" in mistake
    assert read(tmp_path, "budget: {max_cost: 1000000000}\n").budget.max_cost_microusd == 10**15


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200.0), ("30s", 30.0), ("250ms", 0.25), ("1h30m", 5400.0), ("1.5m", 90.0), ("12", 12.0), ("1d", 86400.0)],
)
def test_durations_are_seconds_or_words(tmp_path: Path, text: str, seconds: float) -> None:
    assert duration_s(text) == seconds
    assert read(tmp_path, f"poll: {{deadline_s: {text}}}\n").poll.deadline_s == seconds


@pytest.mark.parametrize("text", ["", "h", "2 weeks", "-3s", "1e3", "2h later", "nan", "٣s "])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512_000_000), ("1 MiB", 1_048_576), ("10k", 10_000), ("77", 77), ("1.5GB", 1.5e9)]
)
def test_sizes_are_bytes_or_words(text: str, size: int) -> None:
    assert size_bytes(text) == size


def test_defaults_of_rows_get_the_types_of_a_manifest(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "defaults: {strength: 0.70, enhance_prompt: false, prompt: NO, seed: 7, model: '7', tags: [a, b]}\n",
        flags={"defaults.check_nsfw": "true"},
    )
    assert settings.defaults == {
        "strength": Decimal("0.70"),
        "enhance_prompt": False,
        "prompt": "NO",
        "seed": 7,
        "model": "7",
        "tags": ["a", "b"],
        "check_nsfw": True,
    }


def test_the_ledger_is_beside_the_outputs_unless_configured(tmp_path: Path) -> None:
    assert read(tmp_path, "outputs: {dir: clips}\n").ledger_path == Path("clips/ledger.db")
    assert read(tmp_path, "ledger: {path: /srv/l.db}\n").ledger_path == Path("/srv/l.db")


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = read(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.pace.burst = 9  # type: ignore[misc]


# --- the gateway's address -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("sandbox", "sandbox"),
        ("https://gateway.pixazo.ai", "https://gateway.pixazo.ai:443"),
        ("https://Gateway.Pixazo.ai/", "https://gateway.pixazo.ai:443"),
        ("https://gateway.pixazo.ai:8443", "https://gateway.pixazo.ai:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost", "http://127.0.0.1:80"),
        ("http://LocalHost.:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:99", "http://127.0.0.1:99"),
        ("http://[0:0::1]:99", "http://127.0.0.1:99"),
        ("https://[::ffff:127.0.0.1]:99", "https://127.0.0.1:99"),
        ("http://127.0.0.2:99", "http://127.0.0.2:99"),
        ("https://gateway.pixazo.ai.", "https://gateway.pixazo.ai:443"),
        ("https://gateway.pixazo.ai.:8443/", "https://gateway.pixazo.ai:8443"),
        ("https://[2001:DB8:0::1]", "https://[2001:db8::1]:443"),
    ],
)
def test_a_gateway_is_known_by_scheme_host_and_port(tmp_path: Path, base_url: str, name: str) -> None:
    assert gateway_id(read(tmp_path, flags={"gateway.base_url": base_url})) == name


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("http://gateway.pixazo.ai", "must be https"),
        ("http://127.0.0.1.example.com", "must be https"),
        ("http://10.0.0.8", "must be https"),
        ("gateway.pixazo.ai", "must be `sandbox` or an address"),
        ("Sandbox", "must be `sandbox` or an address"),
        ("ftp://gateway.pixazo.ai", "must be `sandbox` or an address"),
        ("https://", "must be `sandbox` or an address"),
        ("https://gateway.pixazo.ai:0", "must be `sandbox` or an address"),
        ("https://gateway.pixazo.ai:99999", "ort"),
        (f"https://user:{CANARY}@gateway.pixazo.ai", "scheme, host and port only"),
        (f"https://gateway.pixazo.ai/?key={CANARY}", "scheme, host and port only"),
        ("https://gateway.pixazo.ai/v1", "scheme, host and port only"),
        ("https://gateway pixazo.ai", "must be `sandbox` or an address"),
        ("https://gateway.pixazo.ai\n", "must be `sandbox` or an address"),
    ],
)
def test_an_address_that_could_leak_the_key_is_refused(tmp_path: Path, base_url: str, words: str) -> None:
    (mistake,) = mistakes(tmp_path, flags={"gateway.base_url": base_url})
    assert words in mistake
    assert CANARY not in mistake


@pytest.mark.parametrize(
    ("host", "here"), [("127.8.9.1", True), ("::1", True), ("LOCALHOST", True), ("0.0.0.0", False)]
)
def test_loopback_is_recognized_by_the_address(host: str, here: bool) -> None:
    assert is_loopback(host) is here


# --- mistakes ------------------------------------------------------------------------------------------------------


def test_all_mistakes_of_all_sources_come_at_once_with_their_place(tmp_path: Path) -> None:
    text = "gatway:\n  base_url: sandbox\nbudget:\n  max_cots: 5\npace: fast\nmodels: {a: b}\n"
    flags, environ = {"pol.min_s": "1", "pace": "x"}, {"DOP_POLL__MINN_S": "1", "DOP_GATEWAY_BASE_URL": "x"}
    found = mistakes(tmp_path, text, flags=flags, environ=environ)
    assert "c.yaml:2:3: gatway.base_url: unknown section. Did you mean 'gateway'?" in found
    assert "c.yaml:4:3: budget.max_cots: unknown key. Did you mean 'max_cost'?" in found
    assert "c.yaml:6:10: models.a: is a list, without keys" in found
    assert "DOP_POLL__MINN_S: unknown key. Did you mean 'min_s'?" in found
    assert "DOP_GATEWAY_BASE_URL: is no setting. Did you mean DOP_GATEWAY__BASE_URL?" in found
    assert "pol.min_s: unknown section. Did you mean 'poll'?" in found
    assert any(line.startswith("pace: is a section") for line in found)


def test_wrong_values_come_all_at_once_with_their_place(tmp_path: Path) -> None:
    text = "pace:\n  rate: fast\n  burst: 0\ndownload: {enabled: perhaps}\non_unknown: {policy: resend}\n"
    assert mistakes(tmp_path, text, environ={"DOP_POLL__MIN_S": "0"}) == [
        "c.yaml:2:3: pace.rate: 'fast' is not a rate: write auto or e.g. 10/1m, 5/1s, 600/1h",
        "c.yaml:3:3: pace.burst: should be greater than or equal to 1",
        "DOP_POLL__MIN_S: should be greater than 0",
        "c.yaml:4:12: download.enabled: should be a valid boolean, unable to interpret input",
        "on_unknown: policy resend needs max_cost: what may be paid twice at most",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("pace: {rate: auto, rate: 1/1s}\n", "c.yaml:1:20: pace.rate is given twice"),
        ("pace: {}\npace: {}\n", "c.yaml:2:1: pace is given twice"),
        ("a: &x 1\n", "c.yaml:1:4: anchors (&x) are not read: write the value out"),
        ("a: 1\nb: *x\n", "c.yaml:2:4: aliases (*x) are not read: write the value out"),
        ("- pace\n", "c.yaml:1:1: must hold sections with keys"),
        ("? [a]\n: 1\n", "c.yaml:1:3: a key must be a word: put a text with brackets"),
        ("pace: {rate: auto\n", "c.yaml:2:1: not YAML: did not find expected ',' or '}'"),
        ("[" * 5000, "c.yaml:1:33: more than 32 levels deep"),
        ("pace: \x07\n", "c.yaml: not YAML: unacceptable character #x0007"),
        ("ledger: {path: a, url: postgresql://b/b}\n", "ledger: path and url are two ledgers: give one"),
        ("poll: {min_s: 9, max_s: 3}\n", "poll: min_s is above max_s"),
        ("schedule: {cron: 0 2 * * *}\n", "schedule: cron and manifest belong together: give both or neither"),
        (
            "outputs: {dir: 'ftp://bucket/x'}\n",
            "c.yaml:1:11: outputs.dir: must be a folder of this machine, or s3://bucket/folder, gs://bucket/folder, "
            "az://container/folder",
        ),
        ("outputs: {staging: 's3://b/x'}\n", "c.yaml:1:11: outputs.staging: must be a folder of this machine"),
        ("models: []\n", "c.yaml:1:1: models: must name at least one, e.g. [dop-lite, dop-turbo]"),
    ],
)
def test_a_file_with_a_trap_is_refused_with_the_place(tmp_path: Path, text: str, mistake: str) -> None:
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(mistake)


@pytest.mark.parametrize(
    "text", [f"gateway: {{key: {CANARY}}}\n", f"api_key: {CANARY}\n", f"uploads: {{secret: {CANARY}}}"]
)
def test_a_key_in_a_configuration_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    (mistake,) = mistakes(tmp_path, text)
    assert "set PIXAZO_API_KEY" in mistake
    assert CANARY not in mistake


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"mysql://dop:{CANARY}@db/dop", "must be an address such as"),
        (f"postgresql://dop:{CANARY}/x@db/dop", "special letter"),
        (f"postgresql://dop:{CANARY}@x@db/dop", "special letter"),
        (f"postgresql://dop:{CANARY}#x@db/dop", "special letter"),
        (f"postgresql://dop@db/dop?password={CANARY}", "among the options"),
        (f"postgresql://dop:{CANARY}@db", "must name the database"),
    ],
)
def test_a_database_that_is_not_written_as_it_must_be_is_refused_and_not_repeated(
    tmp_path: Path, url: str, words: str
) -> None:
    (mistake,) = mistakes(tmp_path, flags={"ledger.url": url})
    assert words in mistake
    assert CANARY not in mistake


def test_the_password_of_a_ledger_is_not_shown(tmp_path: Path) -> None:
    settings = read(tmp_path, f"ledger: {{url: 'postgresql://dop:{CANARY}@db:5432,db2/dop?sslmode=require'}}\n")
    shown = {key: text for key, text, _ in loader.effective(settings)}
    assert shown["ledger.url"] == "postgresql://dop:***@db:5432,db2/dop?sslmode=require"
    assert ledger_name(settings) == "postgresql://dop@db:5432,db2/dop"


@pytest.mark.parametrize(("data", "words"), [(b"a: \xff", "is not UTF-8"), (b"#" * 1_000_001, "is larger")])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "c.yaml").write_bytes(data)
    with pytest.raises(UsageError, match=words):
        load(tmp_path / "c.yaml", overrides={}, environ={})


def test_a_missing_file_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml", overrides={}, environ={})


# --- the files that ship -------------------------------------------------------------------------------------------


def test_without_a_file_the_default_of_the_working_directory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, overrides={}, environ={}).defaults["model"] == "dop-lite"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "default.yaml").write_text("defaults: {model: own}\n", encoding="utf-8")
    assert load(None, overrides={}, environ={}).defaults["model"] == "own"


def test_the_packaged_files_are_found_and_others_are_not() -> None:
    assert packaged("live.yaml").read_bytes() == (REPO / "configs" / "live.yaml").read_bytes()
    with pytest.raises(UsageError, match=r"configs/none\.yaml is missing"):
        packaged("none.yaml")


def test_the_default_configuration_cannot_cost_money() -> None:
    settings = load(REPO / "configs" / "default.yaml", overrides={}, environ={})
    assert settings.gateway.is_embedded
    assert settings.defaults == {
        "model": "dop-lite",
        "motion": "General",
        "strength": Decimal("0.7"),
        "enhance_prompt": False,
    }


def test_the_live_configuration_has_a_budget_and_names_every_key_with_its_default(tmp_path: Path) -> None:
    live, default = load(REPO / "configs" / "live.yaml", overrides={}, environ={}), read(tmp_path)
    assert gateway_id(live) == "https://gateway.pixazo.ai:443"
    assert live.budget.max_cost_microusd is not None
    assert [key for key, source in live.sources.items() if source == "default"] == []
    own = {"gateway.base_url", "budget.max_cost", "budget.per_day", "budget.per_month"}
    shown = {key: text for key, text, _ in loader.effective(default)}
    differ = {key for key, text, _ in loader.effective(live) if shown.get(key, text) != text}
    assert differ == own


def test_the_sandbox_section_speaks_the_sandboxs_words(tmp_path: Path) -> None:
    mine, theirs = read(tmp_path).sandbox, sandbox_settings.SandboxSettings(data_dir=tmp_path)
    for name in set(EmbeddedSandboxSettings.model_fields) - {"data", "kind"}:
        assert getattr(mine, name) == getattr(theirs, name), name
    for size in sandbox_settings.LONG_SIDES_PX:
        assert read(tmp_path, flags={"sandbox.size": size}).sandbox.size == size


def test_the_effective_configuration_shows_money_in_dollars_and_no_password() -> None:
    url = f"postgresql://dop:{CANARY}@db/x"
    settings = Settings.model_validate({"ledger": {"url": url}, "budget": {"max_cost": "2.5"}})
    shown = {key: (text, source) for key, text, source in loader.effective(settings)}
    assert shown["budget.max_cost"][0] == "$2.5"
    assert shown["ledger.url"][0] == "postgresql://dop:***@db/x"
    assert shown["prices.dop-turbo"] == ("$0.416", "default")
    assert CANARY not in repr(shown)


# --- the key -------------------------------------------------------------------------------------------------------


def key_file(home: Path, text: str, mode: int = 0o600) -> Path:
    file = home / ".pixazo" / "api-key"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def test_the_key_comes_from_the_environment_then_the_file_then_not_at_all(tmp_path: Path) -> None:
    assert read_key({}, tmp_path) is None
    key_file(tmp_path, "from-file\n")
    assert read_key({}, tmp_path) == "from-file"
    assert read_key({"PIXAZO_API_KEY": ""}, tmp_path) == "from-file"
    assert read_key({"PIXAZO_API_KEY": "from-environment"}, tmp_path) == "from-environment"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o777])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = key_file(tmp_path, CANARY, mode)
    with pytest.raises(UsageError, match=f"chmod 600 {file}") as caught:
        read_key({}, tmp_path)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("key", ["a\nb", "a\r", "a b", " a", "a\t", "ä", "a\x00", "a\x7f", "a\n\n"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    key_file(tmp_path, CANARY + key)
    for environ in ({"PIXAZO_API_KEY": CANARY + key}, {}):
        if not environ and key == "a\r":
            continue  # a file's last line may end with CR LF
        with pytest.raises(UsageError, match="visible ASCII") as caught:
            read_key(environ, tmp_path)
        assert CANARY not in str(caught.value)


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    key_file(tmp_path, "\n")
    with pytest.raises(UsageError, match="visible ASCII"):
        read_key({}, tmp_path)


def test_a_folder_in_the_keys_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".pixazo" / "api-key").mkdir(parents=True)
    with pytest.raises(UsageError, match="is not a regular file"):
        read_key({}, tmp_path)


def test_settings_never_hold_the_key(tmp_path: Path) -> None:
    settings = read(tmp_path, environ={"PIXAZO_API_KEY": CANARY})
    assert CANARY not in repr(settings)
    assert CANARY not in repr(list(loader.effective(settings)))


# --- .env ----------------------------------------------------------------------------------------------------------


def test_a_dotenv_is_read_literally_and_the_real_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# mine\nPIXAZO_API_KEY=a$b#c\nexport DOP_PACE__RATE='1/1s'\nHOME=/x\n\n", encoding="utf-8")
    file.chmod(0o600)
    assert loader.environment({"HOME": "/root"}, tmp_path) == {
        "PIXAZO_API_KEY": "a$b#c",
        "DOP_PACE__RATE": "1/1s",
        "HOME": "/root",
    }


def test_without_a_dotenv_the_environment_is_as_it_was(tmp_path: Path) -> None:
    assert loader.environment({"A": "1"}, tmp_path) == {"A": "1"}


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [(f"PIXAZO_API_KEY={CANARY}\n", 0o644, "chmod 600"), (f"\n{CANARY}\n", 0o600, r"\.env:2: is not NAME=VALUE")],
)
def test_a_dotenv_with_a_trap_is_refused_and_not_repeated(tmp_path: Path, text: str, mode: int, words: str) -> None:
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    (tmp_path / ".env").chmod(mode)
    with pytest.raises(UsageError, match=words) as caught:
        loader.environment({}, tmp_path)
    assert CANARY not in str(caught.value)
