"""/embedding of the llama-server dialect: its inputs, and the lengths that vectors are given."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import Unsupported

from .. import bodies
from ..chat import select
from ..problem import Refused
from ..running import embed
from . import prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask.typing import ResponseReturnValue

    from nitrolib.engine import Engine
    from nitrolib.prompt import Prompt

__all__ = ["embedding", "normalized"]

_LARGEST = 32760  # of a vector that is normalized by its largest number


def embedding() -> ResponseReturnValue:
    body, defaults = bodies.read("llama-server", "EmbeddingRequest")
    field = "content" if "content" in body else "input"
    norm: int = body.get("embd_normalize", defaults["embd_normalize"])
    if norm < 0:
        raise Unsupported(
            "embd_normalize -1 is not supported: vectors have a length of 1",
            field="embd_normalize",
            value=norm,
            allowed="0 or more",
        )
    with select(body) as lease:
        if not lease.status.embedding:
            raise Refused(
                HTTPStatus.NOT_IMPLEMENTED,
                "This model was loaded without embeddings. Load it with embedding true.",
                "not_supported",
            )
        made = embed(lease, _inputs(body[field], lease.engine, field))
    rows = [
        {"index": index, "embedding": [normalized(vector, norm)]}
        for index, vector in enumerate(made.vectors)
    ]
    return jsonify(rows)


def normalized(vector: Sequence[float], norm: int) -> list[float]:
    """*vector* with its p-norm 1, p being *norm*; with 0 its largest number is 32760."""
    sizes = [abs(one) for one in vector]
    largest = max(sizes, default=0.0)
    if norm == 2 or not largest:
        return list(vector)  # as the engine makes them
    if norm == 0:
        return [one / largest * _LARGEST for one in vector]
    # Taken relative to the largest: a high power of a small number is nothing.
    length = largest * sum((one / largest) ** norm for one in sizes) ** (1 / norm)
    return [one / length for one in vector]


def _inputs(given: Any, engine: Engine, field: str) -> Any:
    """What to embed, in a form of the engine's: texts alone, or token ids alone."""
    texts = _texts(given)
    if texts is not None and all(texts):
        return texts
    read = prompt.read(_plain(given), engine, field)
    return [_ids(one, engine) for one in read]


def _ids(one: Prompt | tuple[int, ...], engine: Engine) -> list[int]:
    return list(one) if isinstance(one, tuple) else engine.prompt_ids(one)


def _plain(given: Any) -> Any:
    """*given* with its objects of content parts made texts."""
    if isinstance(given, dict) and "content" in given:
        return "".join(part["text"] for part in given["content"])
    return [_plain(one) for one in given] if isinstance(given, list) else given


def _texts(given: Any) -> list[str] | None:
    """The inputs, where all of them are texts."""
    every = [_plain(one) for one in (given if isinstance(given, list) else [given])]
    every = [one["prompt_string"] if _bare(one) else one for one in every]
    return every if all(isinstance(one, str) for one in every) else None


def _bare(one: Any) -> bool:
    return isinstance(one, dict) and not one.get("multimodal_data")
