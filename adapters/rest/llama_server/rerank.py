"""/rerank of the llama-server dialect: documents in the order of how well they answer a query."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import InvalidRequest, Unsupported

from .. import bodies, running
from ..chat import select
from ..problem import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from nitrolib.engine.request import Reranking

__all__ = ["rerank"]


def rerank() -> ResponseReturnValue:
    """`texts` in place of `documents` are answered by an array: two kinds of clients ask."""
    body, defaults = bodies.read("llama-server", "RerankRequest")
    field = "documents" if "documents" in body else "texts"
    with select(body) as lease:
        model = lease.id
        try:
            found = running.rerank(lease, body["query"], body[field])
        except Unsupported as error:
            message = f"{error.message}: load one that was made for it"
            raise Refused(HTTPStatus.NOT_IMPLEMENTED, message, "not_supported") from error
        except InvalidRequest as error:
            _own_field(error, field)
            raise
    best = sorted(range(len(found.scores)), key=lambda index: -found.scores[index])
    best = best[: body.get("top_n")]
    if field == "texts":
        with_text = body.get("return_text", defaults["return_text"])
        return jsonify(_texts(best, found, body["texts"] if with_text else None))
    return jsonify(_documents(best, found, model))


def _documents(best: list[int], found: Reranking, model: str) -> Mapping[str, Any]:
    count = found.prompt_tokens
    return {
        "model": model,
        "object": "list",
        "usage": {"prompt_tokens": count, "total_tokens": count},
        "results": [{"index": one, "relevance_score": found.scores[one]} for one in best],
    }


def _texts(best: list[int], found: Reranking, texts: list[str] | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"index": one, "score": found.scores[one]} for one in best]
    return rows if texts is None else [{**row, "text": texts[row["index"]]} for row in rows]


def _own_field(error: InvalidRequest, field: str) -> None:
    """Call the field as the client called it: documents[3] of the engine is texts/3."""
    name = error.field or ""
    if name.startswith("documents"):
        error.field = name.replace("documents[", f"{field}/").rstrip("]")
