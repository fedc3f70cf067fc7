"""Where the key may go: who gave the address decides, and what the user trusts is remembered privately."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.key_origins import KeyOrigins, may_receive_key, origin, refusal, state_folder
from pipeline.config.loader import Settings, environment, load
from pipeline.errors import UsageError

OTHER = "https://gateway.example"
LOCAL = "http://127.0.0.1:8099"


def settings_from(folder: Path, *, file: str = "", dot_env: str = "", flag: str = "", variable: str = "") -> Settings:
    """Settings whose gateway is given in one place."""
    config = folder / "c.yaml"
    config.write_text(f"gateway: {{base_url: '{file}'}}\n" if file else "poll: {max_s: 9}\n", encoding="utf-8")
    (folder / ".env").write_text(f"DOP_GATEWAY__BASE_URL={dot_env}\n" if dot_env else "", encoding="utf-8")
    environ = environment({"DOP_GATEWAY__BASE_URL": variable} if variable else {}, folder)
    return load(config, overrides={"gateway.base_url": flag} if flag else {}, environ=environ)


@pytest.mark.parametrize(
    ("given", "environ", "may"),
    [
        ({"file": "https://gateway.pixazo.ai"}, {}, True),
        ({"file": "https://gateway.pixazo.ai:8443"}, {}, False),
        ({"file": OTHER}, {}, False),
        ({"dot_env": OTHER}, {}, False),
        ({"dot_env": OTHER}, {"PIXAZO_API_KEY": "k"}, False),
        ({"file": OTHER}, {"PIXAZO_API_KEY": "k"}, False),
        ({"file": LOCAL}, {}, False),
        ({"dot_env": LOCAL}, {}, False),
        ({"file": LOCAL}, {"PIXAZO_API_KEY": "k"}, True),
        ({"flag": OTHER}, {}, True),
        ({"variable": OTHER}, {"DOP_GATEWAY__BASE_URL": OTHER}, True),
    ],
)
def test_the_place_of_the_address_decides(
    tmp_path: Path, given: dict[str, str], environ: dict[str, str], may: bool
) -> None:
    settings = settings_from(tmp_path, **given)
    assert may_receive_key(settings, environ, KeyOrigins(tmp_path / "state")) is may


def test_a_trusted_origin_may_receive_it_and_another_port_may_not(tmp_path: Path) -> None:
    origins = KeyOrigins(tmp_path / "a" / "state")
    origins.trust(origin(OTHER))
    origins.trust(origin("https://[::1]:8443/"))
    assert origins.trusted() == {"https://gateway.example:443", "https://127.0.0.1:8443"}
    assert may_receive_key(settings_from(tmp_path, file=f"{OTHER}:443"), {}, origins)
    assert not may_receive_key(settings_from(tmp_path, file=f"{OTHER}:444"), {}, origins)
    file = tmp_path / "a" / "state" / "trusted-origins.json"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_record_that_others_may_write_or_that_is_damaged_is_refused(tmp_path: Path) -> None:
    origins = KeyOrigins(tmp_path)
    origins.trust(origin(OTHER))
    file = tmp_path / "trusted-origins.json"
    file.chmod(0o666)
    with pytest.raises(UsageError, match="chmod 600"):
        origins.trusted()
    file.chmod(0o600)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="trust no origin"):
        origins.trusted()


@pytest.mark.parametrize("address", ["gateway.example", "http://gateway.example", "https://u:p@gateway.example", ""])
def test_only_an_address_that_a_key_may_go_to_can_be_trusted(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        origin(address)
    assert "u:p" not in str(caught.value)


def test_the_refusal_names_the_address_its_place_and_the_command(tmp_path: Path) -> None:
    text = str(refusal(settings_from(tmp_path, file=OTHER)))
    assert f"dop key trust {OTHER}" in text
    assert "c.yaml:1" in text


def test_the_state_folder_is_that_of_the_desktop_standard() -> None:
    home = Path("/home/one")
    assert state_folder({}, home) == Path("/home/one/.local/state/dop-batch")
    assert state_folder({"XDG_STATE_HOME": "relative"}, home) == Path("/home/one/.local/state/dop-batch")
    assert state_folder({"XDG_STATE_HOME": "/srv/state"}, home) == Path("/srv/state/dop-batch")
