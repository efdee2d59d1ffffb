"""Client: GET over checked connections, with every redirect checked as the first address was."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpcore
import httpx

from .policy import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .connection import Guard
    from .policy import FetchPolicy

__all__ = ["NETWORK_ERRORS", "Client"]

# What trying again may mend.
NETWORK_ERRORS = (
    httpx.TransportError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    ConnectionError,
)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Client:
    """The HTTP client of one download; a context manager. Proxies of the environment are not used:
    behind one, no address could be checked.

    token: sent as a bearer token to *token_host* alone.
    """

    def __init__(
        self, policy: FetchPolicy, guard: Guard, *, token: str | None = None, token_host: str = ""
    ) -> None:
        self._policy = policy
        self._token, self._token_host = token, token_host
        timeout = httpx.Timeout(policy.read_timeout_s, connect=policy.connect_timeout_s)
        self._http = httpx.Client(
            transport=_Transport(guard), timeout=timeout, trust_env=False, follow_redirects=False
        )

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer that stands at the end of the redirects, its body not yet read. Raises
        DownloadError with reason "source", or one of NETWORK_ERRORS."""
        before: str | None = None
        for _ in range(self._policy.max_redirects + 1):
            self._policy.check_url(url, before=before)
            with contextlib.ExitStack() as stack:
                response = stack.enter_context(self._open(url, headers))
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                before, url = url, self._next(response)
        raise refusal(f"more than {self._policy.max_redirects} redirects")

    def close(self) -> None:
        self._http.close()

    def _open(
        self, url: str, headers: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[httpx.Response]:
        sent = {**headers, "accept-encoding": "identity", "user-agent": "nitrolib"}
        if self._token and urlsplit(url).netloc == self._token_host:
            sent["authorization"] = f"Bearer {self._token}"
        try:
            return self._http.stream("GET", url, headers=sent)
        except httpx.InvalidURL as error:
            raise refusal(f"this is no URL: {error}") from error

    def _next(self, response: httpx.Response) -> str:
        try:
            return str(response.url.join(response.headers["location"]))
        except (KeyError, httpx.InvalidURL, ValueError) as error:
            raise refusal("the server redirects to nowhere") from error


class _Transport(httpx.BaseTransport):
    """httpx over a pool of httpcore that connects through the guard."""

    def __init__(self, guard: Guard) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=guard, max_connections=2
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=None,
                extensions=request.extensions,
            )
        )
        stream: Any = answer.stream
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(stream),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()
