"""Text and tokens of the llama-server dialect: /tokenize and /detokenize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import InvalidRequest

from .. import bodies
from ..chat import details, select

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from nitrolib.engine import Engine
    from nitrolib.gguf import Vocabulary

__all__ = ["detokenize", "tokenize"]


def tokenize() -> ResponseReturnValue:
    body, defaults = bodies.read("llama-server", "TokenizeRequest")
    values = {**defaults, **body}
    with select(body) as lease:
        ids = _ids(
            body.get("content", ""),
            lease.engine,
            special=values["parse_special"],
            add_bos=values["add_special"],
        )
        vocabulary = lease.engine.vocabulary
    if not values["with_pieces"]:
        return jsonify({"tokens": ids})
    _check(ids, vocabulary, "content")
    return jsonify({"tokens": [{"id": one, "piece": _piece(one, vocabulary)} for one in ids]})


def detokenize() -> ResponseReturnValue:
    body, _ = bodies.read("llama-server", "DetokenizeRequest")
    ids = list(map(int, body.get("tokens", ())))
    with select(body) as lease:
        vocabulary = lease.engine.vocabulary
    _check(ids, vocabulary, "tokens")
    return jsonify({"content": details.text(ids, vocabulary)})


def _ids(content: Any, engine: Engine, *, special: bool, add_bos: bool) -> list[int]:
    """The tokens of a text, or of an array of texts and token ids; BOS only before a text."""
    parts = content if isinstance(content, list) else [content]
    found: list[int] = []
    for index, part in enumerate(parts):
        if isinstance(part, str):
            found += engine.tokenize(part, special=special, add_bos=add_bos and index == 0)
        else:
            found.append(int(part))
    return found


def _check(ids: list[int], vocabulary: Vocabulary, field: str) -> None:
    for one in ids:
        if not 0 <= one < vocabulary.n_vocab:
            raise InvalidRequest(
                f"{field} holds {one}, which is no token of this model",
                field=field,
                value=one,
                allowed=f"0 to {vocabulary.n_vocab - 1}",
            )


def _piece(token: int, vocabulary: Vocabulary) -> str | list[int]:
    """Its text, that of a control token its name; bytes where they are no whole characters."""
    piece = vocabulary.pieces[token]
    if not piece:
        names = (name for name, known in vocabulary.special.items() if known == token)
        return next(names, "")
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
