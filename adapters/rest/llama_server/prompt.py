"""Prompts of the llama-server dialect: texts, token ids, both mixed, and arrays of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest

if TYPE_CHECKING:
    from nitrolib.engine import Engine
    from nitrolib.prompt import Prompt

__all__ = ["read", "special_text"]

_MARKED = "Multimodal data provided, but model does not support multimodal requests."


def read(given: Any, engine: Engine, field: str = "prompt") -> list[Prompt | tuple[int, ...]]:
    """The prompts in *given*, which is checked against the schema: one, unless it is an array
    without a bare number.

    BOS goes in front, where the model wants one, of a prompt that is or begins with a text. Raises
    InvalidRequest for media, and ContextOverflow for a mixed one that is too long.
    """
    if not isinstance(given, list) or any(_is_id(one) for one in given):
        return [_one(given, engine, field)]
    return [_one(one, engine, f"{field}/{index}") for index, one in enumerate(given)]


def special_text(text: str, *, add_bos: bool) -> Prompt:
    """A text in which names of control tokens are those tokens: the client writes all of it."""
    from nitrolib.prompt import Prompt, Segment

    return Prompt((Segment(text, special=True),), add_bos=add_bos)


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float)  # 5.0 is a whole number to the schema


def _one(given: Any, engine: Engine, field: str) -> Prompt | tuple[int, ...]:
    if isinstance(given, dict):
        if given.get("multimodal_data"):
            raise InvalidRequest(
                _MARKED, field=f"{field}/multimodal_data", allowed="no media: an empty array"
            )
        return special_text(given["prompt_string"], add_bos=True)
    if isinstance(given, str):
        return special_text(given, add_bos=True)
    if all(map(_is_id, given)):
        return tuple(map(int, given))
    ids: list[int] = []
    for index, part in enumerate(given):
        if _is_id(part):
            ids.append(int(part))
        elif part or index == 0:
            ids += engine.prompt_ids(special_text(part, add_bos=index == 0))
    return tuple(ids)
