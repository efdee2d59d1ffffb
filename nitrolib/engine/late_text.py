"""LateText: the text of an answer that is made on delivery, while native code runs."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from .ending import backend_error
from .request import Chunk

if TYPE_CHECKING:
    from .answer import AnswerText
    from .handle import Outbox
    from .job import MakeError
    from .request import Completion

__all__ = ["LateText"]

log = logging.getLogger(__name__)


class LateText:
    """Where the text cannot end the answer, the loop need not know it: it hands over the tokens,
    and what they say is found when its reader gets it.

    Every method belongs to delivery (`Outbox.later`), in the order in which the loop asked for it,
    and takes one argument. The chunks are those that the loop would have made.
    """

    def __init__(self, answer: AnswerText, outbox: Outbox[Completion]) -> None:
        self._answer = answer
        self._outbox = outbox
        self._texts: list[str] = []
        self._untold: list[int] = []  # tokens that have not left in chunks
        self._told = 0  # tokens that have
        self._tail = ""

    def token(self, token: int) -> None:
        """A token that others may follow."""
        try:
            self._untold.append(token)
            text = self._answer.feed(token)
            if text:
                self._send(text)
        except Exception as exc:  # noqa: BLE001 -- the request's own, and nobody else hears of it
            self._fail(exc)

    def last(self, token: int) -> None:
        """The last token, unless that says nothing: its text goes with the end."""
        try:
            self._tail = self._answer.feed(token)
        except Exception as exc:  # noqa: BLE001 -- as above
            self._fail(exc)

    def end(self, whole: Completion) -> None:
        """The answer is done; `whole` is all of it but the text."""
        try:
            text, whole = self._joined(whole)
            self._outbox.put_now(
                Chunk(
                    text=text,
                    token_ids=whole.token_ids[self._told :],
                    finish_reason=whole.finish_reason,
                    stop=whole.stop,
                    usage=whole.usage,
                    timings=whole.timings,
                )
            )
            self._outbox.finish_now(whole)
        except Exception as exc:  # noqa: BLE001 -- as above
            self._fail(exc)

    def break_off(self, how: tuple[MakeError, Completion]) -> None:
        """The answer ends with an error, which is made of what there is so far."""
        make, whole = how
        try:
            text, whole = self._joined(whole)
            if text or self._told < len(whole.token_ids):
                self._outbox.put_now(Chunk(text=text, token_ids=whole.token_ids[self._told :]))
            self._outbox.finish_now(make(whole))
        except Exception as exc:  # noqa: BLE001 -- as above
            self._fail(exc)

    def _send(self, text: str) -> None:
        self._texts.append(text)
        ids, self._untold = tuple(self._untold), []
        self._told += len(ids)
        self._outbox.put_now(Chunk(text=text, token_ids=ids))

    def _joined(self, whole: Completion) -> tuple[str, Completion]:
        """The text that has not been sent, and `whole` with all of its text."""
        text = self._tail + self._answer.flush()
        return text, replace(whole, text="".join(self._texts) + text)

    def _fail(self, exc: Exception) -> None:
        log.error("the text of an answer could not be made", exc_info=exc)
        self._outbox.finish_now(backend_error(exc))
