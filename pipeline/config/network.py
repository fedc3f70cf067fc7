"""Proxies and certificate authorities as the environment names them, for every call to the outside.

HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY (also in small letters, which win) as curl knows them; SSL_CERT_FILE,
SSL_CERT_DIR, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE. What cannot be honoured is refused by name, never passed over: a
call that leaves by another way than the company's would end in a time-out without a cause. Calls to this machine never
take a proxy.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config.gateway_address import is_loopback
from pipeline.errors import UsageError

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name a file or a folder of certificates which takes the place of the system's; the first one wins."""

SYSTEM_BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that OpenSSL itself reads for the system's certificates."""

PROXY_SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkEnvironment:
    """How calls leave this machine.

    Attributes:
        proxies: scheme of the address called -> (variable, the proxy's address).
        no_proxy: hosts that are called directly, as NO_PROXY has them.
        bundle: the variable that names certificates and its value; None for the system's.
    """

    proxies: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    no_proxy: str = ""
    bundle: tuple[str, str] | None = None

    def proxy_for(self, url: str) -> str | None:
        """The proxy for a call to `url`; None for a direct one."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        found = self.proxies.get(parts.scheme)
        # Behind a proxy 127.0.0.1 would be the proxy's machine and not this one.
        if found is None or is_loopback(host) or self._is_direct(host):
            return None
        return found[1]

    def _is_direct(self, host: str) -> bool:
        entries = (entry.strip().lower() for entry in self.no_proxy.split(","))
        return any(_matches(host.lower(), entry) for entry in entries if entry)

    def ssl_context(self) -> ssl.SSLContext | None:
        """The certificates to trust; None for the system's as the HTTP library loads them.

        Raises:
            UsageError: the file is no bundle of certificates.
        """
        if self.bundle is None:
            return None
        with self._bundle_is_whole():
            return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, **self._locations())

    def load_certificates(self, context: ssl.SSLContext) -> None:
        """Have a context trust the certificates that the environment names, or the system's.

        Raises:
            UsageError: the file is no bundle of certificates.
        """
        locations = self._locations()
        if not locations:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            return
        with self._bundle_is_whole():
            context.load_verify_locations(**locations)

    def _locations(self) -> dict[str, str]:
        """The bundle as the ssl module takes it; empty for the system's certificates."""
        if self.bundle is None or self.bundle[0] in SYSTEM_BUNDLES:
            return {}
        path = Path(self.bundle[1])
        named = {"cafile": path.is_file(), "capath": path.is_dir()}
        return {kind: str(path) for kind, is_it in named.items() if is_it}

    @contextmanager
    def _bundle_is_whole(self) -> Iterator[None]:
        try:
            yield
        except ssl.SSLError:
            named = "=".join(self.bundle or ())
            raise UsageError(f"{named} holds no certificates; nothing was sent") from None

    def described(self) -> Iterator[str]:
        """Each setting in force as `VARIABLE=value`, without passwords."""
        for name, value in dict.fromkeys(self.proxies.values()):
            yield f"{name}={masked(value)}"
        if self.proxies and self.no_proxy:
            yield f"NO_PROXY={self.no_proxy}"
        if self.bundle is not None:
            yield "=".join(self.bundle)


def network_environment(environ: Mapping[str, str]) -> NetworkEnvironment:
    """What the environment says of proxies and certificates.

    Raises:
        UsageError: a proxy of a kind that is not supported, or certificates that are not there.
    """
    proxies = {}
    for scheme in ("http", "https"):
        found = _first(environ, f"{scheme}_proxy", "all_proxy")
        if found is not None:
            proxies[scheme] = (found[0], _proxy(*found))
    no_proxy = _first(environ, "no_proxy")
    for name in (*BUNDLES, *SYSTEM_BUNDLES):
        value = environ.get(name)
        # OpenSSL passes over a file that is missing, and each call would then fail on its certificate without a cause.
        if value and not Path(value).exists():
            raise UsageError(
                f"{name}={value}: there is no such file; set it to your company's certificates or unset it"
            )
    bundle = next(((name, environ[name]) for name in (*BUNDLES, *SYSTEM_BUNDLES) if environ.get(name)), None)
    return NetworkEnvironment(proxies=proxies, no_proxy=no_proxy[1] if no_proxy else "", bundle=bundle)


def masked(url: str) -> str:
    """A proxy's address without its user name and password."""
    return re.sub(r"(?<=://)[^/@]*@", "***@", url)


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    spelled = (spelling for name in names for spelling in (name, name.upper()))
    return next(((name, environ[name]) for name in spelled if environ.get(name)), None)


def _proxy(name: str, value: str) -> str:
    address = value if "://" in value else f"http://{value}"
    parts = urlsplit(address)
    if parts.scheme not in PROXY_SCHEMES or not parts.hostname:
        remedy = "unset it, or name the gateway in NO_PROXY"
        raise UsageError(f"{name}={masked(address)}: only http:// and https:// proxies are supported; {remedy}")
    return address


def _matches(host: str, entry: str) -> bool:
    """Whether an entry of NO_PROXY means the host: `*`, a name and all below it, an address, or a network (10.0.0.0/8).

    A port behind the entry is ignored: a host that is named is called directly on every port.
    """
    if entry == "*":
        return True
    name = entry.partition(":")[0].removeprefix("*").lstrip(".") if entry.count(":") == 1 else entry.lstrip("*.")
    if host == name or host.endswith(f".{name}"):
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False
