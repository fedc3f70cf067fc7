"""Proxies and certificates of the environment: honoured, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.network import NetworkEnvironment, network_environment
from pipeline.errors import UsageError

GATEWAY = "https://gateway.example.com/path"


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy.corp:3128"}, "http://proxy.corp:3128"),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": "http://large:2"}, "http://small:1"),
        ({"HTTPS_PROXY": "proxy.corp:3128"}, "http://proxy.corp:3128"),
        ({"ALL_PROXY": "http://all:1"}, "http://all:1"),
        ({"HTTP_PROXY": "http://plain:1"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "gateway.example.com"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other.com, .example.com"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "*.example.com:443"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ample.com"}, "http://p:1"),
    ],
)
def test_which_proxy_a_call_takes(environ: dict[str, str], proxy: str | None) -> None:
    assert network_environment(environ).proxy_for(GATEWAY) == proxy


def test_a_network_in_no_proxy_means_its_addresses() -> None:
    network = network_environment({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"})
    assert network.proxy_for("https://10.2.3.4/x") is None
    assert network.proxy_for("https://11.2.3.4/x") == "http://p:1"


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_calls_to_this_machine_take_no_proxy(host: str) -> None:
    network = network_environment({"ALL_PROXY": "http://p:1"})
    assert network.proxy_for(f"http://{host}/x") is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used_is_refused_by_name_and_without_its_password(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}=socks5://\\*\\*\\*@proxy:1080") as refused:
        network_environment({name: "socks5://anna:geheim@proxy:1080"})
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_are_not_there_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}=/not/there: there is no such file"):
        network_environment({name: "/not/there"})


def test_a_file_without_certificates_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate\n")
    network = network_environment({"REQUESTS_CA_BUNDLE": str(path)})
    with pytest.raises(UsageError, match="REQUESTS_CA_BUNDLE="):
        network.ssl_context()


def test_what_is_shown_holds_no_password() -> None:
    network = network_environment({"HTTPS_PROXY": "http://anna:geheim@proxy:1", "NO_PROXY": "a.example"})
    assert list(network.described()) == ["HTTPS_PROXY=http://***@proxy:1", "NO_PROXY=a.example"]
    assert list(NetworkEnvironment().described()) == []
