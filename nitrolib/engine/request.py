"""What goes into the engine and what comes out, as plain frozen data.

The same objects cross the process boundary later, so nothing here holds a lock, a callback, an
array or a reference to an engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from ..errors import InvalidRequest
from ..prompt.message import Prompt
from ..sampling.params import SamplingParams
from .lora import check_pairs
from .status import EngineStatus as EngineStatus  # here for those who look for all plain data
from .status import ModelStatus as ModelStatus
from .status import SlotStatus as SlotStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..prompt import Trigger

FinishReason = Literal["stop", "length"]
StopType = Literal["none", "eos", "word", "limit"]
Kind = Literal["chat", "completion", "warm_up"]
Overflow = Literal["error", "shift"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One generation.

    prompt: segments, or token ids as they are (nothing is added to ids).
    kind: "chat" counts for the cache cleaning policy, the others do not.
    cache_prompt: reuse the KV cache of a slot that begins with the same tokens.
    id_slot: -1 for the best slot, else the slot it must run in: while that is busy it waits and
        lets those behind it pass, but nobody behind it gets that slot first.
    timeout_s: seconds from submit to the last token; None is no deadline.
    strip_leading_space: drop white space before the first visible character of the answer.
    context_policy: what happens when the answer fills the context. "error" ends it with "length";
        "shift" drops the older half of what may go and goes on: without `max_tokens` for as long
        as the model does not end. `Completion.truncated` and `notes` tell of both. A prompt that
        does not fit is refused either way.
    n_keep: tokens at the beginning of the prompt that a shift must leave, BOS apart; -1 is all of
        it. At most all but four of the context stay.
    timings_per_token: `Chunk.timings` in every chunk, not in the last alone.
    return_progress: chunks that tell how much of the prompt is evaluated, before its answer.
    constraint: a grammar that the answer must follow, in the Lark dialect of llguidance: that of
        tool calls, as `prepare_chat` makes it. Not together with `params.grammar` or
        `params.json_schema`.
    trigger: what makes the constraint begin to hold; None holds the whole answer to it.
    shown: control tokens, by id, and the texts that they have in the answer; others have none.
    lora: pairs of an adapter's number and the strength with which it acts on this request; adapters
        that are not named do not act. None is the strengths of loading, or those set since.
    notes: what was dropped or cut while the request was made; repeated in the Completion.
    """

    prompt: Prompt | tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    kind: Kind = "completion"
    cache_prompt: bool = True
    id_slot: int = -1
    timeout_s: float | None = None
    strip_leading_space: bool = False
    context_policy: Overflow = "error"
    n_keep: int = 0
    timings_per_token: bool = False
    return_progress: bool = False
    constraint: str | None = None
    trigger: Trigger | None = None
    shown: tuple[tuple[int, str], ...] = ()
    lora: tuple[tuple[int, float], ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_timeout(self.timeout_s)
        if not isinstance(self.prompt, (Prompt, tuple)):
            raise InvalidRequest(
                f"prompt must be a Prompt or a tuple of ids, got {type(self.prompt).__name__}",
                field="prompt",
                value=self.prompt,
                allowed="a Prompt, or a tuple of whole numbers",
            )
        if not isinstance(self.params, SamplingParams):
            raise InvalidRequest(
                f"params must be SamplingParams, got {type(self.params).__name__}",
                field="params",
                value=self.params,
                allowed="SamplingParams",
            )
        if isinstance(self.id_slot, bool) or not isinstance(self.id_slot, int) or self.id_slot < -1:
            raise InvalidRequest(
                f"id_slot must be -1 or a slot number, got {self.id_slot!r}",
                field="id_slot",
                value=self.id_slot,
                allowed="-1, or 0 to the number of slots less one",
            )
        if self.kind not in get_args(Kind):
            raise InvalidRequest(
                f"kind is {self.kind!r}",
                field="kind",
                value=self.kind,
                allowed=" or ".join(get_args(Kind)),
            )
        self._check_constraint()
        if self.lora is not None:
            check_pairs(self.lora)
        if self.context_policy not in get_args(Overflow):
            raise InvalidRequest(
                f"context_policy is {self.context_policy!r}",
                field="context_policy",
                value=self.context_policy,
                allowed=" or ".join(get_args(Overflow)),
            )
        if isinstance(self.n_keep, bool) or not isinstance(self.n_keep, int) or self.n_keep < -1:
            raise InvalidRequest(
                f"n_keep must be a whole number of at least -1, got {self.n_keep!r}",
                field="n_keep",
                value=self.n_keep,
                allowed="-1 for the whole prompt, or a number of tokens",
            )

    def _check_constraint(self) -> None:
        if self.constraint is None:
            if self.trigger is not None:
                raise InvalidRequest(
                    "a trigger is of no use without a constraint that it sets in force",
                    field="trigger",
                    value=self.trigger,
                    allowed="None without a constraint",
                )
            return
        if not isinstance(self.constraint, str):
            raise InvalidRequest(
                f"constraint must be a text, got {type(self.constraint).__name__}",
                field="constraint",
                value=self.constraint,
                allowed="None, or a grammar in llguidance's Lark dialect",
            )
        for name in ("grammar", "json_schema"):
            value = getattr(self.params, name)
            if value:
                raise InvalidRequest(
                    f"{name} cannot be used together with tools that may be called",
                    field=name,
                    value=value[:200],
                    allowed="None beside tools, or tool_choice none",
                )


def check_timeout(timeout_s: float | None) -> None:
    """Raise InvalidRequest for a time limit that is not a positive number of seconds."""
    if timeout_s is None:
        return
    number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
    if not number or not timeout_s > 0:  # written this way round so that NaN fails too
        raise InvalidRequest(
            f"timeout_s must be above 0, got {timeout_s!r}",
            field="timeout_s",
            value=timeout_s,
            allowed="seconds above 0, or None",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts. `prompt_tokens` is the whole prompt, BOS and cached part included;
    `cached_tokens` is the part of it that was not evaluated again; `completion_tokens` counts every
    sampled token, the end token included."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @classmethod
    def of_choices(cls, usages: Sequence[Usage]) -> Usage:
        """The account of several choices: the prompt they share once, as the one found it that
        evaluated it, and the tokens of all their answers."""
        return cls(
            prompt_tokens=usages[0].prompt_tokens,
            completion_tokens=sum(one.completion_tokens for one in usages),
            cached_tokens=min(one.cached_tokens for one in usages),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of one request went, in seconds: waiting in the queue, evaluating the prompt
    (first token included), and every token after the first; and how many tokens that was.

    cache_n, prompt_n: prompt tokens taken from the KV cache, and evaluated so far; at the end they
        add up to the prompt.
    predicted_n: tokens sampled so far. The first comes with the prompt, so `decode_s` is the time
        of `predicted_n - 1` steps.
    draft_n, draft_n_accepted: tokens that were guessed ahead, and those of them that came.
    """

    queue_s: float
    prefill_s: float
    decode_s: float
    cache_n: int = 0
    prompt_n: int = 0
    predicted_n: int = 0
    draft_n: int = 0
    draft_n_accepted: int = 0


class TokenProb(NamedTuple):
    """One token that could have come: its id, its bytes (perhaps half a character; b"" for a
    control token), and either the natural logarithm of its probability or the probability."""

    id: int
    piece: bytes
    logprob: float | None
    prob: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenProbs:
    """One step of the answer with `n_probs`: the token chosen and the most likely ones.

    text: what the step sent: "" while a stop string may have begun, and with the text held back
        before once it has not. The texts of all entries, joined, are the answer. A step that ends
        inside a character has no entry: the one that completes it carries the whole character.
    logprob: of the chosen token, from the softmax of the raw logits over the whole vocabulary;
        -3.4028234663852886e38 stands for the logarithm of 0. None with `post_sampling_probs`.
    prob: the probability it was drawn with, with `post_sampling_probs`; else None.
    top: min(n_probs, n_vocab) tokens, best first; with `post_sampling_probs` at most as many, those
        that could have been drawn.
    """

    id: int
    text: str
    logprob: float | None = None
    prob: float | None = None
    top: tuple[TokenProb, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the evaluation of a prompt has come, in tokens: of `total` ones `cached` were in the
    KV cache, and `processed`, these included, are evaluated, `time_s` seconds after it began."""

    total: int
    cached: int
    processed: int
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of the answer. `usage` is there in the last chunk alone, the one whose
    `finish_reason` is set, and so is `timings` unless the request has `timings_per_token`. Token
    ids arrive with the text they completed, so `token_ids` may hold several, and `probs` too.

    `text` may be empty only in the last chunk, and in chunks that have `progress` instead, which
    come only when the request has `return_progress`: one before any evaluation, then one after each
    part of the prompt, `processed` rising from `cached` to `total`.

    When a generation is ended from outside, a last chunk without `finish_reason` may bring text
    that was held back.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    stop: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    progress: Progress | None = None
    probs: tuple[TokenProbs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole answer: by construction the join of its chunks.

    finish_reason: "stop" for an end token, a stop string (`stop` is that string, else None) or the
        end of all that a grammar allows; "length" for max_tokens, a full context, too little
        indentation or the time limit; None only in `Cancelled.partial`.
    prompt_token_ids, token_ids: exactly what was evaluated and sampled, end token included.
    slot: where it ran, so that a test can look.
    seed: the seed in use, also where none was asked for; with it the request can be repeated.
    tokens_cached: tokens in the slot's KV cache at the end: the prompt and all sampled tokens but
        the last, which was not evaluated, less those that shifts dropped.
    truncated: whether the context was full: it cut the answer, or what came before was dropped.
    complete: False for an answer that was cut before the grammar or schema that it had to follow
        was complete; what is complete is valid.
    probs: with `n_probs` the entries of all chunks.
    """

    text: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    stop: str | None
    usage: Usage
    timings: Timings
    slot: int
    seed: int | None = None
    tokens_cached: int = 0
    truncated: bool = False
    complete: bool = True
    probs: tuple[TokenProbs, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stop_type(self) -> StopType:
        """What ended it: an end token ("eos"), a stop string ("word"), a limit, or nothing yet."""
        if self.finish_reason is None:
            return "none"
        if self.finish_reason == "length":
            return "limit"
        return "eos" if self.stop is None else "word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors in the order of the inputs, each of n_embd floats and L2 length 1."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranking:
    """How well each document answers a query, in the order of the documents: higher is better, and
    the scale is the model's own. `prompt_tokens` counts the query once for each document."""

    scores: tuple[float, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCleared:
    """What `clear_cache` did: the slots it emptied, and the busy ones it did not touch."""

    cleared: tuple[int, ...]
    busy: tuple[int, ...]
