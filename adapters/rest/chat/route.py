"""The chat route of every dialect: what a dialect does in its own way is data, a `ChatDialect`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import jsonify, request

from nitrolib.errors import InvalidRequest

from .. import bodies
from ..running import Run
from ..service import service
from . import answer
from . import request as chat_request
from .answer import AnswerStyle
from .prompt import Conversation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask.typing import ResponseReturnValue

    from ..service import Lease

__all__ = ["ChatDialect", "apply_template", "respond", "select", "wants_stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDialect:
    """How one dialect chats.

    document: of its schemas. request, message: the schemas of a body, and of a message in it; the
        fields are those of Nitro's ChatCompletionRequest or some of them, and a dialect that must
        have `model` requires it there.
    strict: whether a model that is not known by its name is refused; None is as the operator set.
    stream: whether to stream when a request does not say; None is as the operator set.
    style: what answers look like.
    defaults: what a request that leaves fields out gets, from the model's lease and the defaults
        of the schema; None is those.
    adjust: changes the fields of a body that is checked; None changes nothing.
    """

    document: str
    request: str = "ChatCompletionRequest"
    message: str = "Message"
    strict: bool | None = None
    stream: bool | None = None
    style: AnswerStyle = field(default_factory=AnswerStyle)
    defaults: Callable[[Lease, Mapping[str, Any]], Mapping[str, Any]] | None = None
    adjust: Callable[[dict[str, Any]], None] | None = None


def respond(dialect: ChatDialect) -> ResponseReturnValue:
    """Answer the chat in the current request."""
    body, defaults = _read(dialect)
    stream = wants_stream(body, dialect.stream)
    lease = select(body, strict=dialect.strict)
    try:
        if not lease.profile.chats:
            raise InvalidRequest("Not support completion for embedding model", field="model")
        if dialect.defaults is not None:
            defaults = dialect.defaults(lease, defaults)
        asked = chat_request.from_body(body, defaults, lease, dialect.style, stream=stream)
        run = Run(lease, asked.request, asked.n)
    except InvalidRequest as error:
        lease.close()
        chat_request.own_field(error, body)
        raise
    except BaseException:
        lease.close()
        raise
    if stream:
        return run.stream(answer.events(run.generations, asked.form))
    return jsonify(answer.completion(run.results(), asked.form))


def apply_template(dialect: ChatDialect) -> ResponseReturnValue:
    """The prompt of the chat in the current request, nothing generated."""
    body, _ = _read(dialect)
    with select(body, strict=dialect.strict) as lease:
        conversation = Conversation(body, lease.template, lease.engine)
        return jsonify({"prompt": conversation.plan.prompt.text})


def select(body: Mapping[str, Any], *, strict: bool | None = None) -> Lease:
    """A lease of the model that *body* names; a name that nobody knows is reported as ignored, or
    refused (see `Service.select`)."""
    lease, known = service().select(body.get("model"), strict=strict)
    if not known:
        bodies.ignore("model")
    return lease


def wants_stream(body: Mapping[str, Any], default: bool | None = None) -> bool:
    """Whether to stream: an explicit value wins, then an Accept header that names event streams,
    then *default*, which is the operator's where it is None."""
    if "stream" in body:
        return bool(body["stream"])
    accepted = {kind for kind, quality in request.accept_mimetypes if quality > 0}
    if "text/event-stream" in accepted:
        return True
    return service().settings.stream_default if default is None else default


def _read(dialect: ChatDialect) -> bodies.Body:
    body = bodies.read(dialect.document, dialect.request)
    bodies.ignore_inside("messages", body.fields["messages"], dialect.document, dialect.message)
    if dialect.adjust is not None:
        dialect.adjust(body.fields)
    return body
