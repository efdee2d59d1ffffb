"""Answers of text completions: the choices of one object, or the events of a stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..chat import details
from ..ids import random_id
from .logprobs import LogprobTable, log_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nitrolib.engine import Generation
    from nitrolib.engine.request import Chunk, Completion, GenerationRequest, Usage
    from nitrolib.gguf import Vocabulary

__all__ = ["TextCompletion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCompletion:
    """What a request for completions asks for, and how its answers are shown.

    requests: one for each prompt.
    made: answers made to each prompt; n: those returned, the likeliest ones where they are fewer.
    echoes: text in front of every answer, for each prompt.
    listed: tokens in the log probabilities of each step; None is no log probabilities.
    """

    model: str
    requests: tuple[GenerationRequest, ...]
    made: int
    n: int
    echoes: tuple[str, ...]
    listed: int | None
    vocabulary: Vocabulary
    tokens: bool = False
    verbose: bool = False
    usage_event: bool = False
    id: str = field(default_factory=lambda: f"cmpl-{random_id(24)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, results: Sequence[Completion]) -> dict[str, Any]:
        """The whole answer; *results* are `made` of the first prompt, then of the next."""
        prompts = [results[at : at + self.made] for at in range(0, len(results), self.made)]
        choices = [
            self._choice(prompt * self.n + place, result)
            for prompt, made in enumerate(prompts)
            for place, result in enumerate(self._best(made))
        ]
        answer = {
            **self._head(),
            "choices": choices,
            "usage": _sum([[one.usage for one in made] for made in prompts]),
        }
        if self.verbose:
            request = self.requests[0]
            answer |= details.details(prompts[0], request, self.vocabulary, stream=False)
        notes = list(dict.fromkeys(note for result in results for note in result.notes))
        return {**answer, "warnings": notes} if notes else answer

    def events(self, generations: Sequence[Generation]) -> Iterator[dict[str, Any]]:
        """The events of a stream: text as it comes, then for every choice its finish reason, then,
        if asked for, the usage."""
        from nitrolib.engine.interleave import interleave

        choices = [_Streamed(self, index, one) for index, one in enumerate(generations)]
        usages: dict[int, Usage] = {}
        for index, chunk in interleave(generations):
            if chunk.usage is not None:
                usages[index] = chunk.usage
            yield {**self._head(), **choices[index].event(chunk)}
        if self.usage_event and len(usages) == len(generations):
            each = [
                [usages[at + place] for place in range(self.made)]
                for at in range(0, len(generations), self.made)
            ]
            yield {**self._head(), "choices": [], "usage": _sum(each)}

    def table(self) -> LogprobTable | None:
        """What makes the log probabilities of one choice."""
        return None if self.listed is None else LogprobTable(self.vocabulary, self.listed)

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
        }

    def _best(self, made: Sequence[Completion]) -> Sequence[Completion]:
        """The `n` answers with the highest mean log probability of a step, best first."""
        if self.made == self.n:
            return made
        return sorted(made, key=_likelihood, reverse=True)[: self.n]

    def _choice(self, index: int, result: Completion) -> dict[str, Any]:
        table = self.table()
        choice = {
            "text": self.echoes[index // self.n] + result.text,
            "index": index,
            "logprobs": None if table is None else table.of(result.probs),
            "finish_reason": result.finish_reason,
        }
        return {**choice, "tokens": list(result.token_ids)} if self.tokens else choice


class _Streamed:
    """The events of one choice."""

    def __init__(self, asked: TextCompletion, index: int, generation: Generation) -> None:
        self._asked = asked
        self._index = index
        self._generation = generation
        self._echo = asked.echoes[index // asked.n]
        self._table = asked.table()

    def event(self, chunk: Chunk) -> dict[str, Any]:
        echo, self._echo = self._echo, ""
        choice = {
            "text": echo + chunk.text,
            "index": self._index,
            "logprobs": None if self._table is None else self._table.of(chunk.probs),
            "finish_reason": chunk.finish_reason,
        }
        if self._asked.tokens:
            choice["tokens"] = list(chunk.token_ids)
        beside = self._beside() if chunk.finish_reason is not None else {}
        if chunk.timings is not None and self._generation.request.timings_per_token:
            beside["timings"] = details.timings(chunk.timings)
        return {"choices": [choice], **beside}

    def _beside(self) -> dict[str, Any]:
        """What the last event of the choice has beside it."""
        result, asked = self._generation.result(), self._asked
        request = asked.requests[self._index // asked.n]
        found: dict[str, Any] = {}
        if asked.verbose:
            found = details.details([result], request, asked.vocabulary, stream=True)
        return {**found, "warnings": list(result.notes)} if result.notes else found


def _likelihood(result: Completion) -> float:
    """Mean log probability of a step of the answer."""
    steps = [log_of(step) for step in result.probs]
    return sum(steps) / len(steps) if steps else 0.0


def _sum(prompts: Sequence[Sequence[Usage]]) -> dict[str, Any]:
    """`usage` of all answers: every prompt once, and the tokens of all that was made."""
    from nitrolib.engine.request import Usage

    each = [Usage.of_choices(one) for one in prompts]
    prompt = sum(one.prompt_tokens for one in each)
    made = sum(one.completion_tokens for one in each)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in each)},
    }
