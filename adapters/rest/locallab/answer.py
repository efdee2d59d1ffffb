"""Answers of the LocalLab dialect: completions become JSON objects, chunks become events."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from nitrolib.errors import DeadlineExceeded, NitroError

from ..problem import problem_of
from .stream import EventWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nitrolib.engine import Generation
    from nitrolib.engine.request import Completion

    from .stream import Form

__all__ = ["batched", "chatted", "events", "finished", "generated"]

log = logging.getLogger(__name__)


def finished(generation: Generation) -> Completion:
    """The whole answer. One that ran out of its time ends with what there is; raises
    DeadlineExceeded where it never ran, and what else it ended with."""
    try:
        return generation.result()
    except DeadlineExceeded as error:
        if error.partial is None:
            raise
        partial: Completion = error.partial
        return partial


def generated(result: Completion) -> dict[str, Any]:
    """The answer of /generate."""
    return {"response": result.text, "usage": _usage([result])}


def chatted(result: Completion) -> dict[str, Any]:
    """The answer of /chat."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": result.text},
        "finish_reason": result.finish_reason or "length",  # None: its time ran out
    }
    return {"choices": [choice], "usage": _usage([result])}


def batched(results: Sequence[Completion]) -> dict[str, Any]:
    """The answer of /generate/batch."""
    return {"responses": [one.text for one in results], "usage": _usage(results)}


def events(generation: Generation, form: Form) -> Iterator[bytes]:
    """The bytes of a stream, its end included. What fails before the first of them is raised; what
    fails later is told in the stream."""
    writer = EventWriter(form)
    begun = False
    try:
        for chunk in generation:
            sent = writer.text(chunk.text)
            if sent:
                begun = True
                yield sent
    except DeadlineExceeded as error:
        if error.partial is None:
            raise
    except Exception as error:
        if not begun:
            raise
        unexpected = None if isinstance(error, NitroError) else error
        log.warning("a stream ended with an error: %s", error, exc_info=unexpected)
        yield writer.error(problem_of(error).message)
        return
    yield writer.end()


def _usage(results: Sequence[Completion]) -> dict[str, int]:
    prompt = sum(one.usage.prompt_tokens for one in results)
    completion = sum(one.usage.completion_tokens for one in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
