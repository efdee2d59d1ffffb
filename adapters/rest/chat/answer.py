"""Answers of a chat: completions become one JSON object, chunks become the events of a stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..ids import random_id
from .details import details, progress, select, timings
from .message import MessageReader
from .probs import logprobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nitrolib.engine import Generation
    from nitrolib.engine.request import Chunk, Completion, GenerationRequest, TokenProbs, Usage
    from nitrolib.gguf import Vocabulary
    from nitrolib.prompt import ChatPlan

__all__ = ["AnswerForm", "AnswerStyle", "completion", "events", "usage_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStyle:
    """What the answers of one dialect look like; the defaults are Nitro's.

    model: what they call the model; None is its own id.
    id_prefix: what their ids begin with.
    whole, chunk: keys of every whole answer, and of every event, besides the usual ones.
    choice, message: keys of every choice, and of every whole message, that has no other value.
    role_event: the role of a streamed choice comes in an event of its own, with empty content.
    usage_null: with usage asked for, every event before has a `usage` of null.
    bare_logprobs: log probabilities are an array, not an object with one as its `content`.
    """

    model: str | None = "_"
    id_prefix: str = ""
    whole: Mapping[str, Any] = field(default_factory=lambda: {"system_fingerprint": "_"})
    chunk: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    message: Mapping[str, Any] = field(default_factory=dict)
    role_event: bool = False
    usage_null: bool = False
    bare_logprobs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """What an answer shows.

    request: what was asked of the engine.
    probs: tokens listed with each token of the answer; None is no logprobs at all.
    tokens: token ids in every choice.
    vocabulary: the model's, where details are wanted (settings, prompt, counts and timings, see
        `details`); else None.
    fields: paths that the answer is reduced to; empty is all of it.
    usage_event: a last event of a stream with the usage.
    plan: how the text is read; None is as text.
    style: of the dialect. model: what the answer calls the model.
    """

    request: GenerationRequest
    probs: int | None = None
    tokens: bool = False
    vocabulary: Vocabulary | None = None
    fields: tuple[str, ...] = ()
    usage_event: bool = False
    plan: ChatPlan | None = None
    style: AnswerStyle = field(default_factory=AnswerStyle)
    model: str = "_"

    def reader(self) -> MessageReader:
        """What reads the text of one choice."""
        return MessageReader(None if self.plan is None else self.plan.parser())


def completion(results: Sequence[Completion], form: AnswerForm) -> dict[str, Any]:
    """The whole answer, of one or more choices, as one JSON object."""
    readers = [form.reader() for _ in results]
    choices = [
        _whole_choice(index, one, reader, form)
        for index, (one, reader) in enumerate(zip(results, readers, strict=True))
    ]
    answer = {
        "choices": choices,
        "created": int(time.time()),
        "id": form.style.id_prefix + random_id(),
        "model": form.model,
        "object": "chat.completion",
        **form.style.whole,
        "usage": usage_json([one.usage for one in results]),
    }
    if form.vocabulary is not None:
        answer |= details(results, form.request, form.vocabulary, stream=False)
    notes = [note for one in results for note in one.notes]
    notes += [note for reader in readers for note in reader.notes]
    if notes:
        answer["warnings"] = list(dict.fromkeys(notes))
    return select(answer, form.fields) if form.fields else answer


def events(generations: Sequence[Generation], form: AnswerForm) -> Iterator[dict[str, Any]]:
    """The events of a stream: text as it comes, then for every choice its finish reason, then, if
    asked for, the usage. The role stands in the first event of a choice."""
    fixed = {
        "created": int(time.time()),
        "id": form.style.id_prefix + random_id(),
        "model": form.model,
        "object": "chat.completion.chunk",
        **form.style.chunk,
    }
    if form.usage_event and form.style.usage_null:
        fixed["usage"] = None
    from nitrolib.engine.interleave import interleave

    choices = [_StreamedChoice(index, one, form) for index, one in enumerate(generations)]
    usages: list[Usage] = []
    for index, chunk in interleave(generations):
        for choice, more in choices[index].events(chunk):
            yield {"choices": [choice], **fixed, **more}
        if chunk.usage is not None:
            usages.append(chunk.usage)
    if form.usage_event and len(usages) == len(generations):
        yield {"choices": [], **fixed, "usage": usage_json(usages)}


def _whole_choice(
    index: int, result: Completion, reader: MessageReader, form: AnswerForm
) -> dict[str, Any]:
    message = reader.whole(result.text)
    return {
        "finish_reason": reader.finish_reason(result.finish_reason),
        "index": index,
        "message": {**form.style.message, **message},
        **_extras(result.token_ids, result.probs, form),
    }


class _StreamedChoice:
    """The events of one choice: pairs of the choice and what stands beside it in the event."""

    def __init__(self, index: int, generation: Generation, form: AnswerForm) -> None:
        self._index = index
        self._generation = generation
        self._form = form
        self._reader = form.reader()
        self._role = {"role": "assistant"}  # for the first event
        # What the next event of the choice takes along: a reader may hold text back.
        self._tokens: list[int] = []
        self._probs: list[TokenProbs] = []

    def events(self, chunk: Chunk) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        if self._role and self._form.style.role_event:
            yield self._choice({"content": ""}), {}
        self._tokens += chunk.token_ids
        self._probs += chunk.probs
        beside: dict[str, Any] = {}
        if self._form.request.timings_per_token and chunk.timings is not None:
            beside["timings"] = timings(chunk.timings)
        if chunk.progress is not None:
            yield self._choice({}), {"prompt_progress": progress(chunk.progress), **beside}
        deltas = self._reader.feed(chunk.text)
        if chunk.finish_reason is not None:
            deltas += self._reader.finish()
        for delta in deltas:
            yield self._choice(delta), beside
        if chunk.finish_reason is not None:
            reason = self._reader.finish_reason(chunk.finish_reason)
            yield self._choice({}, reason), {**beside, **self._last()}

    def _choice(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        role, self._role = self._role, {}
        tokens, self._tokens = self._tokens, []
        probs, self._probs = self._probs, []
        return {
            "delta": {**delta, **role},
            "finish_reason": finish_reason,
            "index": self._index,
            **_extras(tokens, probs, self._form),
        }

    def _last(self) -> dict[str, Any]:
        """What the last event of the choice has beside it."""
        form, result = self._form, self._generation.result()
        found: dict[str, Any] = {}
        if form.vocabulary is not None:
            found = details([result], form.request, form.vocabulary, stream=True)
            if form.fields:
                found = select(found, form.fields)
        notes = [*result.notes, *self._reader.notes]
        return {**found, "warnings": notes} if notes else found


def _extras(tokens: Sequence[int], probs: Sequence[TokenProbs], form: AnswerForm) -> dict[str, Any]:
    """What a choice has besides its text."""
    found: dict[str, Any] = {**form.style.choice}
    if form.probs is not None:
        told = logprobs(probs, form.probs) if probs else None
        found["logprobs"] = told["content"] if told and form.style.bare_logprobs else told
    if form.tokens:
        found["tokens"] = list(tokens)
    return found


def usage_json(usages: Sequence[Usage]) -> dict[str, Any]:
    """The `usage` of an answer of one or more choices."""
    from nitrolib.engine.request import Usage

    usage = Usage.of_choices(usages)
    return {
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
