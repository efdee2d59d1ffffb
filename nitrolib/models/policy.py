"""FetchPolicy: where files may be fetched from, and how much of everything a fetch may take."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import DownloadError, InvalidRequest

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["ANY_HOST", "HUB_HOSTS", "FetchPolicy", "is_public"]

ANY_HOST = ("*",)
# The Hugging Face Hub and where it sends those who ask for a file.
HUB_HOSTS = ("huggingface.co", "*.huggingface.co", "hf.co", "*.hf.co")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Inside it, and not known as special to every version of `ipaddress`.
_SPECIAL = tuple(map(ipaddress.ip_network, ("2001::/23", "2001:db8::/32", "3fff::/20")))


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """What a fetch may do. It follows http and https only, never from https back to http.

    hosts: allowed names, at every redirect too; "*" is any, "*.example.org" those below it.
    allow_private: also connect to loopback, private, link-local and other addresses that are not
        of the public internet. Each address is checked when it is connected to.
    max_bytes: largest file. keep_free_bytes: room on the disk that must be left.
    connect_timeout_s, read_timeout_s: longest wait for a connection, and for the next bytes.
    max_time_s: longest time for one model, all of its files and retries.
    max_redirects: in a row. retries: failures in a row, without a byte of progress, before giving
        up; between them it waits `backoff_s`, doubled each time, 30 seconds at most.
    backend: the backend that must be able to run the model; "auto" is any that is installed.
    endpoint: address of the Hugging Face Hub; None is what huggingface_hub is set to.
    """

    hosts: tuple[str, ...] = HUB_HOSTS
    allow_private: bool = False
    max_bytes: int = 1 << 40
    keep_free_bytes: int = 256 << 20
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    max_time_s: float = 24 * 3600.0
    max_redirects: int = 5
    retries: int = 6
    backoff_s: float = 0.5
    backend: str = "auto"
    endpoint: str | None = None

    def __post_init__(self) -> None:
        for row in fields(self):
            value = getattr(self, row.name)
            if row.type in ("int", "float") and not _is_amount(value, zero=row.name in _MAY_BE_0):
                raise InvalidRequest(
                    f"{row.name} must be a number above 0, got {value!r}",
                    field=row.name,
                    value=value,
                    allowed="a finite number above 0",
                )
        hosts: Any = self.hosts  # a single text is a likely mistake
        if isinstance(hosts, str) or not all(hosts):
            raise InvalidRequest(
                f"hosts must be a list of names, got {self.hosts!r}",
                field="hosts",
                value=self.hosts,
                allowed="names of hosts, * for any",
            )

    def check_url(self, url: str, *, before: str | None = None) -> SplitResult:
        """The parts of a URL that may be fetched; *before* is the one that redirected to it.
        Raises DownloadError with reason "source"."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port  # the port is checked by reading it
        except ValueError as error:
            raise refusal(f"{_shown(url)} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise refusal(f"{_shown(url)} is no http or https URL")
        if parts.username is not None or parts.password is not None:
            raise refusal("a URL with a user name or a password is not fetched")
        if before is not None and before.startswith("https:") and parts.scheme == "http":
            raise refusal(f"{_shown(before)} redirects to plain http")
        self.check_host(host)
        return parts

    def check_host(self, host: str) -> None:
        """Raises DownloadError with reason "source" for a name that `hosts` does not have."""
        if not self._allows(host):
            raise refusal(f"{host} is none of the hosts that may be fetched from", host=host)

    def _allows(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        for allowed in self.hosts:
            pattern = allowed.lower()
            if pattern in ("*", name):
                return True
            if pattern.startswith("*.") and name.endswith(pattern[1:]):
                return True
        return False

    def check_address(self, address: str, host: str) -> None:
        """Raises DownloadError with reason "source" for an address that must not be connected
        to."""
        if not self.allow_private and not is_public(address):
            raise refusal(f"{host} is an address that is not of the public internet", host=host)


_MAY_BE_0 = frozenset({"keep_free_bytes", "max_redirects", "retries", "backoff_s"})


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; those that lead to an IPv4 address
    (mapped, 6to4, Teredo, NAT64) only if that one is."""
    try:
        found: _Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = _inner(found)
        if inner is not None:
            return is_public(str(inner))
        if found not in _GLOBAL_UNICAST or any(found in one for one in _SPECIAL):
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to."""
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or int(address) >> 32 == 0:  # ::a.b.c.d, and so :: and ::1
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def refusal(message: str, **facts: Any) -> DownloadError:
    """The error for a source that is not to be fetched."""
    return DownloadError(message, reason="source", **facts)


def _is_amount(value: Any, *, zero: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and (value > 0 or (zero and value == 0))


def _shown(url: str) -> str:
    """Without its query, which may hold a key."""
    bare = url.split("?")[0]
    return ascii(bare if len(bare) <= 200 else f"{bare[:197]}...")[1:-1]
