"""Embeddings: the four forms of input, and the two encodings of vectors, whole or shortened."""

from __future__ import annotations

import base64
import math
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest

from .problem import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nitrolib.engine.request import Embeddings, ModelStatus

__all__ = ["answer", "check", "inputs"]


def check(body: Mapping[str, Any], model: ModelStatus) -> None:
    """Raise what the loaded *model* cannot do for this request."""
    if not model.embedding:
        message = "The model was loaded with embedding false; load it with embedding true"
        raise Refused(HTTPStatus.CONFLICT, message, "embedding_disabled")
    if body.get("dimensions", 1) > model.n_embd:
        raise InvalidRequest(
            f"dimensions must be at most the model's own, {model.n_embd}, got {body['dimensions']}",
            field="dimensions",
            value=body["dimensions"],
            allowed=f"1 to {model.n_embd}",
        )


def inputs(body: Mapping[str, Any]) -> Any:
    """What to embed, in one of the engine's four forms; *body* is checked against the schema."""
    given = body["input"]
    if isinstance(given, str) or isinstance(given[0], str):
        return given
    if isinstance(given[0], list):
        return [_ids(item) for item in given]
    return _ids(given)


def answer(
    embeddings: Embeddings, encoding: str, dimensions: int | None = None, model: str = "_"
) -> dict[str, Any]:
    """The answer, which calls the model *model*.

    encoding: "float" or "base64" (of little-endian float32).
    dimensions: numbers to keep of every vector, which then has length 1 again; None is all.
    """
    encode = _to_base64 if encoding == "base64" else list
    data = [
        {"embedding": encode(_shortened(vector, dimensions)), "index": index, "object": "embedding"}
        for index, vector in enumerate(embeddings.vectors)
    ]
    count = embeddings.prompt_tokens
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"data": data, "model": model, "object": "list", "usage": usage}


def _shortened(vector: Sequence[float], dimensions: int | None) -> Sequence[float]:
    if dimensions is None or dimensions >= len(vector):
        return vector
    kept = vector[:dimensions]
    length = math.hypot(*kept)
    return [one / length for one in kept] if length else kept


def _ids(items: Sequence[Any]) -> list[int]:
    return list(map(int, items))  # 5.0 is a whole number to the schema


def _to_base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
