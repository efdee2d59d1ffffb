"""Answers of the llama-server dialect: completions become its final objects, chunks its events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import sse
from ..chat import details
from ..chat.probs import logprobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nitrolib.engine import Generation
    from nitrolib.engine.request import Chunk, Completion, GenerationRequest, TokenProbs
    from nitrolib.gguf import Vocabulary

__all__ = ["AnswerForm", "encode", "events", "settings", "whole"]

_PING: Mapping[str, Any] = {}  # the event that is written as a comment


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """What an answer shows.

    request: what was asked of the engine; where there are several, the settings are of all.
    model: what it calls the model. vocabulary: of the model.
    listed: tokens listed with each token of the answer; 0 is no probabilities.
    tokens: the ids of a whole answer.
    progress: events of a stream that tell how much of the prompt is evaluated.
    fields: paths that a final object is reduced to; empty is all of it.
    silence_s: seconds after which a silent stream gets a comment; None is never.
    """

    request: GenerationRequest
    model: str
    vocabulary: Vocabulary
    listed: int = 0
    tokens: bool = False
    progress: bool = False
    fields: tuple[str, ...] = ()
    silence_s: float | None = None


def whole(results: Sequence[Completion], form: AnswerForm) -> Any:
    """The answer that is not streamed: an object, or several in an array."""
    answers = [_final(index, one, form, stream=False) for index, one in enumerate(results)]
    return answers[0] if len(answers) == 1 else answers


def events(generations: Sequence[Generation], form: AnswerForm) -> Iterator[Mapping[str, Any]]:
    """The events of a stream: text as it comes, and for each answer its final object. There is
    nothing after the last of them."""
    from nitrolib.engine.interleave import paced

    answers = [_Streamed(index, one, form) for index, one in enumerate(generations)]
    silence, sent_at = form.silence_s, time.monotonic()
    for found in paced(generations, silence):
        quiet = True
        if found is not None:
            index, chunk = found
            for event in answers[index].events(chunk):
                quiet = False
                yield event
        # A chunk may bring nothing to send: only what is sent breaks the silence.
        now = time.monotonic()
        if quiet and silence is not None and now - sent_at >= silence:
            quiet = False
            yield _PING
        sent_at = sent_at if quiet else now


def encode(event: Mapping[str, Any]) -> bytes:
    """One event as it is sent."""
    return sse.encode(event) if event else b":\n\n"


def settings(
    request: GenerationRequest, vocabulary: Vocabulary, *, seed: int | None, stream: bool
) -> dict[str, Any]:
    """`generation_settings`, with all the names that llama.cpp's server has."""
    found = details.settings(request, seed=seed, stream=stream)
    if request.params.ignore_eos:
        found["logit_bias"] += [{"bias": None, "token": token} for token in sorted(vocabulary.eog)]
    return {
        **found,
        "n_keep": request.n_keep,
        "n_discard": 0,
        "adaptive_target": -1.0,
        "adaptive_decay": 0.9,
        "grammar_lazy": False,
        "grammar_triggers": [],
        "preserved_tokens": [],
        "chat_format": "Content-only",
        "reasoning_format": "none",
        "reasoning_in_content": False,
        "generation_prompt": "",
        "speculative.types": "none",
        "backend_sampling": False,
        "context_policy": request.context_policy,
    }


def _final(index: int, result: Completion, form: AnswerForm, *, stream: bool) -> dict[str, Any]:
    ids = [] if stream or not form.tokens else list(result.token_ids)
    answer: dict[str, Any] = {
        "index": index,
        "content": "" if stream else result.text,
        "tokens": ids,
        "id_slot": result.slot,
        "stop": True,
        "model": form.model,
        "tokens_predicted": result.usage.completion_tokens,
        "tokens_evaluated": result.usage.prompt_tokens,
        "generation_settings": settings(
            form.request, form.vocabulary, seed=result.seed, stream=stream
        ),
        "prompt": details.text(result.prompt_token_ids, form.vocabulary),
        "has_new_line": "\n" in result.text,
        "truncated": result.truncated,
        "stop_type": result.stop_type,
        "stopping_word": result.stop or "",
        "tokens_cached": result.tokens_cached,
        "timings": details.timings(result.timings),
    }
    if form.listed and not stream:
        answer["completion_probabilities"] = _probs(result.probs, form)
    if result.notes:
        answer["warnings"] = list(result.notes)
    return details.select(answer, form.fields) if form.fields else answer


class _Streamed:
    """The events of one answer."""

    def __init__(self, index: int, generation: Generation, form: AnswerForm) -> None:
        self._index = index
        self._generation = generation
        self._form = form
        self._evaluated = 0
        self._predicted = 0

    def events(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        form = self._form
        beside: dict[str, Any] = {}
        if form.request.timings_per_token and chunk.timings is not None:
            beside["timings"] = details.timings(chunk.timings)
        if chunk.progress is not None:
            self._evaluated = chunk.progress.total
            if form.progress:
                told = {"prompt_progress": details.progress(chunk.progress)}
                yield self._partial("", (), {**beside, **told})
        yield from self._text(chunk, beside)
        if chunk.finish_reason is not None:
            yield _final(self._index, self._generation.result(), form, stream=True)

    def _text(self, chunk: Chunk, beside: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One event for each entry of probabilities, which hold the text of the step."""
        entries = chunk.probs
        if not self._form.listed or "".join(one.text for one in entries) != chunk.text:
            self._predicted += len(chunk.token_ids)
            if chunk.text or (chunk.token_ids and chunk.finish_reason is None):
                told = {"completion_probabilities": _probs(entries, self._form)} if entries else {}
                yield self._partial(chunk.text, chunk.token_ids, {**beside, **told})
            return
        # Steps inside a character have no entry of their own.
        unlisted = len(chunk.token_ids) - len(entries)
        self._predicted += max(unlisted, 0)
        for entry in entries:
            self._predicted += 1
            told = {"completion_probabilities": _probs([entry], self._form)}
            yield self._partial(entry.text, (entry.id,), {**beside, **told})

    def _partial(self, text: str, ids: Sequence[int], beside: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "index": self._index,
            "content": text,
            "tokens": list(ids),
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": self._predicted,
            "tokens_evaluated": self._evaluated,
            **beside,
        }


def _probs(entries: Sequence[TokenProbs], form: AnswerForm) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = logprobs(entries, form.listed)["content"]
    return found
