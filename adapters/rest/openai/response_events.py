"""A response as it is made: one object at the end, or the events of a stream."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nitrolib.errors import NitroError

from ..problem import problem_of
from .output import Output
from .response import usage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nitrolib.engine import Generation
    from nitrolib.engine.request import Completion, TokenProbs

    from ..chat.answer import AnswerForm
    from ..chat.message import MessageReader
    from .output import Event
    from .response import ResponseForm

__all__ = ["ResponseWriter"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResponseWriter:
    """Writes one response.

    form: what is the same in all its states.
    answer: how the text of the answer is read, and what it shows.
    keep: called with the whole response before the client is told of it; it raises where the
        response cannot be kept.
    """

    form: ResponseForm
    answer: AnswerForm
    keep: Callable[[dict[str, Any]], None]

    def whole(self, result: Completion) -> dict[str, Any]:
        """The response of a whole answer."""
        reader, output = self.answer.reader(), Output(self.answer.probs)
        for _ in _told(reader, output, result.text, result.probs):
            pass
        return self._ended(reader, output, result)

    def events(self, generation: Generation) -> Iterator[Event]:
        """The events of a streamed response, numbered. An error after the first one is an event
        too, the last."""
        for number, event in enumerate(self._events(generation)):
            yield {"type": event["type"], "sequence_number": number, **event}

    def _events(self, generation: Generation) -> Iterator[Event]:
        for state in ("created", "in_progress"):
            yield {"type": f"response.{state}", "response": self.form.shown("in_progress")}
        output = Output(self.answer.probs)
        try:
            yield from self._running(generation, output)
        except Exception as error:  # the status is sent; an event is all that is left
            unexpected = None if isinstance(error, NitroError) else error
            log.warning("a response ended with an error: %s", error, exc_info=unexpected)
            told = {"code": "server_error", "message": problem_of(error).message}
            failed = self.form.shown("failed", output.items, error=told)
            yield {"type": "response.failed", "response": failed}

    def _running(self, generation: Generation, output: Output) -> Iterator[Event]:
        reader = self.answer.reader()
        for chunk in generation:
            last = chunk.finish_reason is not None
            yield from _told(reader, output, chunk.text, chunk.probs, last=last)
            if last:
                yield from self._end(reader, output, generation.result())

    def _end(self, reader: MessageReader, output: Output, result: Completion) -> Iterator[Event]:
        yield from output.finish(whole=result.finish_reason == "stop")
        response = self._ended(reader, output, result)
        yield {"type": f"response.{response['status']}", "response": response}

    def _ended(self, reader: MessageReader, output: Output, result: Completion) -> dict[str, Any]:
        """The response with its status, kept."""
        whole = result.finish_reason == "stop"
        for _ in output.finish(whole=whole):
            pass
        more: dict[str, Any] = {"usage": usage_of(result.usage)}
        if not whole:
            more["incomplete_details"] = {"reason": "max_output_tokens"}
        notes = [*result.notes, *reader.notes]
        if notes:
            more["warnings"] = notes
        response = self.form.shown("completed" if whole else "incomplete", output.items, **more)
        self.keep(response)
        return response


def _told(
    reader: MessageReader,
    output: Output,
    text: str,
    probs: Sequence[TokenProbs],
    *,
    last: bool = True,
) -> Iterator[Event]:
    """The events of more *text* of the answer; at the *last* of it, those of what was held back."""
    deltas = reader.feed(text)
    if last:
        deltas += reader.finish()
        probs = probs[: _sent(probs)]
    for delta in deltas:
        yield from output.feed(delta, probs)
        probs = ()


def _sent(probs: Sequence[TokenProbs]) -> int:
    """Steps up to the last that sent text: an end token sends none."""
    return max((at for at, one in enumerate(probs, 1) if one.text), default=0)
