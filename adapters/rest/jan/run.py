"""One run of a thread while it is answered: its generation, its events, and how its end is kept.

Nothing of an answer is stored before its end; the message and the run's last status are written at
once. A run that was cancelled, or whose client has gone, keeps the text that there was.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nitrolib.errors import Cancelled, Conflict, NitroError, NotFound
from nitrolib.store import ACTIVE, new_id, text_part

from ..chat.answer import usage_json
from .objects import message_json, run_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nitrolib.engine import Generation
    from nitrolib.engine.request import Completion
    from nitrolib.store import Message, Run, Store

    from ..chat.answer import AnswerForm
    from .state import State

__all__ = ["DONE", "Answering", "encode"]

log = logging.getLogger(__name__)

DONE = b"event: done\ndata: [DONE]\n\n"
Event = tuple[str, dict[str, Any]]


def encode(event: Mapping[str, Any]) -> bytes:
    """One event under its name."""
    name, data = event.get("event", "error"), event.get("data", event.get("error"))
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()


class Answering:
    """A run whose generation was submitted and which is stored as "queued".

    `in_background` answers it in a thread of its own, `events` as a stream of OpenAI's events. In
    whatever way it ends, the end is stored once.
    """

    def __init__(
        self,
        store: Store,
        run: Run,
        generation: Generation,
        form: AnswerForm,
        state: State,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.run = run
        self._store = store
        self._generation = generation
        self._form = form
        self._state = state
        self._notes = notes
        self._message_id = new_id("msg")
        self._text = ""
        self._ending = threading.Lock()
        self._ended = False
        state.add_run(run.id, generation.cancel)

    def in_background(self, release: Callable[[], object]) -> None:
        """Answer in a thread of its own, and call *release* at the end."""

        def work() -> None:
            try:
                for _name, _data in self.events():
                    pass
            except NitroError as error:
                log.warning("the run %s failed: %s", self.run.id, error)
            except Exception:
                log.exception("the run %s failed", self.run.id)
            finally:
                self.close()
                release()

        threading.Thread(target=work, name="nitro-run", daemon=True).start()

    def stream(self) -> Iterator[dict[str, Any]]:
        """`events` as the objects that `encode` writes."""
        for name, data in self.events():
            yield {"event": name, "data": data}

    def events(self) -> Iterator[Event]:
        """What happens, by OpenAI's names, to its end."""
        yield "thread.run.created", run_json(self.run)
        yield "thread.run.queued", run_json(self.run)
        yield from self._begin()
        try:
            yield from self._deltas()
        except NitroError as error:
            if not isinstance(error, Cancelled):
                log.warning("the run %s failed: %s", self.run.id, error)
            yield from self._ended_events(self._fail(error))
            return
        yield from self._ended_events(self.end())

    def close(self) -> None:
        """End the generation, and store how the run ended, if nobody has. Nobody is left to hear of
        a storage that fails: it is logged."""
        self._generation.cancel()
        try:
            self.end()
        except NitroError as error:
            log.warning("the end of the run %s is not kept: %s", self.run.id, error)

    def end(self) -> Message | None:
        """Store how the run ended, if nobody has: its message is returned."""
        outcome: Completion | None = None
        if self._generation.done():
            try:
                outcome = self._generation.result()
            except Cancelled:
                pass
            except NitroError as error:
                return self._fail(error)
        if outcome is None:
            return self._finish("cancelled", {"cancelled_at": _now()}, complete=False)
        usage = usage_json([outcome.usage])
        del usage["prompt_tokens_details"]
        changes: dict[str, Any] = {"usage": usage, "notes": (*self._notes, *outcome.notes)}
        self._text = self._whole(outcome)
        if outcome.finish_reason == "length":
            changes["incomplete_details"] = {"reason": "max_completion_tokens"}
            return self._finish("incomplete", changes, complete=False)
        return self._finish("completed", {**changes, "completed_at": _now()}, complete=True)

    # ---- inside ----------------------------------------------------------------------------

    def _begin(self) -> Iterator[Event]:
        try:
            self.run = self._store.runs.update(
                self.run.thread_id,
                self.run.id,
                only_if=["queued"],
                status="in_progress",
                started_at=_now(),
            )
        except (Conflict, NotFound):  # cancelled, or deleted with its thread
            self._generation.cancel()
            return
        yield "thread.run.in_progress", run_json(self.run)
        message = self._message("in_progress")
        yield "thread.message.created", message
        yield "thread.message.in_progress", message

    def _deltas(self) -> Iterator[Event]:
        reader = self._form.reader()
        for chunk in self._generation:
            deltas = reader.feed(chunk.text)
            if chunk.finish_reason is not None:
                deltas += reader.finish()
            for delta in deltas:
                text = delta.get("content", "")
                self._text += text
                if text:
                    yield "thread.message.delta", self._delta(text)

    def _whole(self, outcome: Completion) -> str:
        return str(self._form.reader().whole(outcome.text)["content"] or "")

    def _fail(self, error: NitroError) -> Message | None:
        if isinstance(error, Cancelled) and error.reason == "caller":
            return self._finish("cancelled", {"cancelled_at": _now()}, complete=False)
        told = {"code": "server_error", "message": error.message}
        return self._finish("failed", {"failed_at": _now(), "last_error": told}, complete=False)

    def _finish(self, status: str, changes: dict[str, Any], *, complete: bool) -> Message | None:
        """Store the run's end, and its message where there is text; once."""
        with self._ending:
            if self._ended:
                return None
            self._ended = True
        self._state.drop_run(self.run.id)
        thread_id, run_id = self.run.thread_id, self.run.id
        changes.setdefault("notes", self._notes)
        try:
            with self._store.transaction():
                message = None
                if complete or self._text:
                    message = self._store.messages.create(
                        thread_id,
                        id=self._message_id,
                        role="assistant",
                        content=[text_part(self._text)],
                        assistant_id=self.run.assistant_id,
                        run_id=run_id,
                        status="completed" if complete else "incomplete",
                        completed_at=_now(),
                    )
                self.run = self._store.runs.update(
                    thread_id, run_id, only_if=ACTIVE, status=status, **changes
                )
        except Conflict as error:  # ended by another process
            log.info("the run %s was over before its answer: %s", run_id, error)
            self.run = self._stored()
            return None
        except NotFound:
            self.run = self._deleted()
            return None
        return message

    def _stored(self) -> Run:
        """The run as another process has ended it, perhaps by deleting its thread since."""
        try:
            return self._store.runs.get(self.run.thread_id, self.run.id)
        except NotFound:
            return self._deleted()

    def _deleted(self) -> Run:
        """The run whose thread was deleted."""
        return replace(self.run, status="cancelled")

    def _ended_events(self, message: Message | None) -> Iterator[Event]:
        if message is not None:
            kept = "completed" if message.status == "completed" else "incomplete"
            yield f"thread.message.{kept}", message_json(message)
        yield f"thread.run.{self.run.status}", run_json(self.run)

    def _message(self, status: str) -> dict[str, Any]:
        """The message before it is stored."""
        return {
            "id": self._message_id,
            "object": "thread.message",
            "created_at": _now(),
            "thread_id": self.run.thread_id,
            "role": "assistant",
            "content": [],
            "file_ids": [],
            "assistant_id": self.run.assistant_id,
            "run_id": self.run.id,
            "metadata": {},
            "status": status,
            "completed_at": None,
            "incomplete_at": None,
            "incomplete_details": None,
            "attachments": [],
        }

    def _delta(self, text: str) -> dict[str, Any]:
        part = {"index": 0, **text_part(text)}
        return {
            "id": self._message_id,
            "object": "thread.message.delta",
            "delta": {"content": [part]},
        }


def _now() -> int:
    return int(time.time())
