"""Where a video may come from: the form of a URL, and the address that would be connected to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from pipeline.gateway.download_outcomes import Unacceptable
from pipeline.gateway.ssrf_rules import readable_url, refusal

PUBLIC = ["8.8.8.8", "104.16.0.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "2606:4700::1111"]
PUBLIC_EMBEDDED = ["::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]

SHUT = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1"),
    *("5f00::1", "100::1", "64:ff9b:1::1", "2001::1"),
    *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "::ffff:0:10.0.0.1"),
    *("64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:a00:1::", "2002:7f00:1::1", "2002:c0a8:101::"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:a00:1::"),
]
LOOPBACK = ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("address", PUBLIC + PUBLIC_EMBEDDED)
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal(address) is None
    assert refusal(address, loopback_allowed=True) is None


@pytest.mark.parametrize("address", SHUT)
def test_inner_and_special_addresses_are_refused_for_a_loopback_gateway_too(address: str) -> None:
    assert refusal(address) is not None
    assert refusal(address, loopback_allowed=True) is not None


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_allowed_only_for_a_loopback_gateway(address: str) -> None:
    assert refusal(address) == "is a loopback address"
    assert refusal(address, loopback_allowed=True) is None


@pytest.mark.parametrize("text", ["", "example.com", "127.1", "2130706433", "0x7f.0.0.1", "010.0.0.1", "127.0.0.1 "])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refusal(text, loopback_allowed=True) == "is no IP address"


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_gets_the_same_answer_however_it_is_carried(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    plain = refusal(str(address))
    assert (refusal(f"::ffff:{address}") is None) == (plain is None)
    assert (refusal(f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}") is None) == (plain is None)
    assert (refusal(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1") is None) == (plain is None)


def test_https_is_always_allowed_and_http_only_when_configured() -> None:
    assert isinstance(readable_url("https://cdn.example/a.mp4", http_allowed=False), URL)
    assert isinstance(readable_url("http://127.0.0.1:8000/a.mp4", http_allowed=True), URL)
    assert readable_url("http://cdn.example/a.mp4", http_allowed=False) == Unacceptable(
        reason="only https is allowed, not http"
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cdn.example/a.mp4",
        "//cdn.example/a.mp4",
        "ftp://cdn.example/a.mp4",
        "file:///etc/passwd",
        "data:video/mp4;base64,AAAA",
        "https:///a.mp4",
        "https://user:word@cdn.example/a.mp4",
        "https://user@cdn.example/a.mp4",
        "https://:word@cdn.example/a.mp4",
        "https://cdn.example:99999/a.mp4",
        "https://[::1/a.mp4",
        "https://good.example\\@evil.example/a.mp4",
        "https://cdn.example/a.mp4\r\nX-Injected: 1",
        "https://cdn.example/\0",
        "https://cdn.example:0/a.mp4",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    assert isinstance(readable_url(url, http_allowed=True), Unacceptable)


def test_a_signed_url_is_sent_byte_for_byte() -> None:
    signed = "https://cdn.example/a%2Fb.mp4?X-Sig=a%2Bb%2F&e=1+2&p=%7e"
    assert str(readable_url(signed, http_allowed=False)) == signed


def test_a_url_with_other_letters_is_quoted() -> None:
    assert str(readable_url("https://bücher.example/zwei wörter.mp4", http_allowed=False)) == (
        "https://xn--bcher-kva.example/zwei%20w%C3%B6rter.mp4"
    )
