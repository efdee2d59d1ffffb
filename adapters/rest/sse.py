"""Server-sent events: JSON events, and what ends a stream of them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from nitrolib.errors import NitroError

from .dialects import answering
from .problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flask import Response

    from .dialects import Dialect

__all__ = ["DONE", "encode", "encode_named", "respond"]

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def encode(event: Mapping[str, Any]) -> bytes:
    """One event: compact JSON in UTF-8. JSON escapes line breaks, so it is one line."""
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def encode_named(event: Mapping[str, Any]) -> bytes:
    """One event under the name that its own "type" (or "error") is."""
    return f"event: {event.get('type', 'error')}\n".encode() + encode(event)


def respond(
    events: Iterator[Mapping[str, Any]],
    release: Callable[[], object],
    *,
    encode: Callable[[Mapping[str, Any]], bytes] = encode,
    done: bytes = DONE,
) -> Response:
    """A response that streams *events*, each as *encode* writes it, and then *done*.

    The first event is awaited here, so that an error before it (a full queue, a prompt that is too
    long) is raised and still gets a status of its own. A later one becomes the dialect's event for
    errors. *release* is called when the response is over, in whatever way, the client's leaving
    included.
    """
    from flask import Response, current_app, request

    dialect = answering(request, current_app)
    try:
        first = next(events, None)  # None: the client has gone before there was anything to send
    except BaseException:
        release()
        raise
    body = _body(first, events, dialect, encode, done)
    response = Response(body, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # a proxy that gathers would undo the streaming
    # Not a `finally` in the generator: one that was never started has nothing to finish.
    response.call_on_close(release)
    return response


def _body(
    first: Mapping[str, Any] | None,
    events: Iterator[Mapping[str, Any]],
    dialect: Dialect,
    encode: Callable[[Mapping[str, Any]], bytes],
    done: bytes,
) -> Iterator[bytes]:
    if first is not None:
        yield encode(first)
    try:
        for event in events:
            yield encode(event)
    except Exception as error:  # the status is sent; an event is all that is left
        unexpected = None if isinstance(error, NitroError) else error
        log.warning("a stream ended with an error: %s", error, exc_info=unexpected)
        body = dialect.error_body(problem_of(error, dialect.statuses))
        yield encode(dialect.error_event(body))
    yield done
