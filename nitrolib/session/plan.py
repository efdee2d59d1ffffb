"""The next prompt of a session: which messages it holds, and which token ids it goes on from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from ..engine.request import Completion, GenerationRequest
from ..errors import ContextOverflow, ModelNotLoaded
from ..prompt import Message, Part, Prompt, encode_parts, split
from ..prompt.continuation import Evaluated
from .history import Exchange, Past

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engine import EngineStatus, Generation
    from ..gguf import Vocabulary
    from ..sampling import SamplingParams

ContextPolicy = Literal["error", "drop_oldest_turns"]


class Template(Protocol):
    """What makes a prompt of messages: PromptTemplate, ChatTemplate, or one's own."""

    @property
    def stops(self) -> tuple[str, ...]: ...

    def render(self, messages: Sequence[Message]) -> Prompt: ...


class ChatEngine(Protocol):
    """What a session asks of an engine; `nitrolib.Engine` has it all."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def chat_template(self) -> Template: ...

    def tokenize(
        self, text: str, special: bool = False, add_bos: bool = False, space_prefix: bool = True
    ) -> list[int]: ...
    def submit(self, request: GenerationRequest) -> Generation: ...
    def status(self) -> EngineStatus: ...


@dataclass(frozen=True, slots=True)
class Known:
    """A vocabulary and what was reckoned of it once: a digest that names it by what its ids mean,
    and the most bytes of text that one token stands for."""

    vocabulary: Vocabulary
    digest: str
    bytes_a_token: int

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Known:
        digest = hashlib.sha256()
        for piece in vocabulary.pieces:
            digest.update(len(piece).to_bytes(4, "little") + piece)
        for text, token in sorted(vocabulary.special.items()):
            digest.update(f"{token} {text}\0".encode("utf-8", "surrogatepass"))
        # An unknown token may stand for any one character, hence 4.
        longest = max(4, *map(len, vocabulary.pieces), *map(len, vocabulary.special))
        return cls(vocabulary, digest.hexdigest(), longest)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next prompt: what it asks after which exchanges, the oldest `dropped` of them left out,
    as parts and as ids."""

    past: Past
    text: str
    dropped: int
    parts: tuple[Part, ...]
    ids: tuple[int, ...]
    vocabulary: str

    def answered(self, completion: Completion) -> Past:
        """The history with this answer."""
        evaluated = Evaluated(self.parts, completion.prompt_token_ids, completion.token_ids)
        exchange = Exchange(self.text, completion.text, self.dropped, evaluated, self.vocabulary)
        return (*self.past, exchange)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Makes the next prompt. It goes on from the ids of the newest of the exchanges `seen` that it
    continues."""

    engine: ChatEngine
    system: str | None
    template: Template
    policy: ContextPolicy
    params: SamplingParams
    known: Known
    seen: Past

    def plan(self, past: Past, text: str) -> Plan:
        n_ctx = self._n_ctx()
        may_drop = self.policy == "drop_oldest_turns"
        dropped = past[-1].dropped if past else 0
        while True:
            may_drop = may_drop and dropped < len(past)
            parts = self._parts(past[dropped:], text)
            try:
                ids = self._ids(parts, n_ctx)
                if not may_drop or self._leaves_room(ids, n_ctx):
                    return Plan(past, text, dropped, parts, tuple(ids), self.known.digest)
            except ContextOverflow:
                if not may_drop:
                    raise
            dropped += 1

    def _parts(self, exchanges: Past, text: str) -> tuple[Part, ...]:
        messages = [] if self.system is None else [Message("system", self.system)]
        messages += [one for each in exchanges for one in each.messages]
        prompt = self.template.render([*messages, Message("user", text)])
        return tuple(split(prompt, self.known.vocabulary))

    def _ids(self, parts: tuple[Part, ...], n_ctx: int) -> list[int]:
        self._check_size(parts, n_ctx)
        vocabulary = self.known.vocabulary
        for exchange in self.seen[:-3:-1]:  # in the second last the last answer is open again
            if exchange.evaluated is not None and exchange.vocabulary == self.known.digest:
                ids = exchange.evaluated.continued(parts, vocabulary, self._tokenize)
                if ids is not None:
                    return ids
        return encode_parts(parts, vocabulary, self._tokenize)

    def _n_ctx(self) -> int:
        model = self.engine.status().model
        if model is None:
            raise ModelNotLoaded()
        return model.n_ctx

    def _tokenize(self, text: str, *, space_prefix: bool = True) -> list[int]:
        return self.engine.tokenize(text, space_prefix=space_prefix)

    def _check_size(self, parts: tuple[Part, ...], n_ctx: int) -> None:
        """Refuse what cannot fit without tokenizing it: megabytes take seconds."""
        least = sum(
            1 if isinstance(part, int) else len(part.encode()) // self.known.bytes_a_token
            for part in parts
        )
        if least + 1 > n_ctx:
            raise ContextOverflow(prompt_tokens=least, limit=n_ctx, at_least=True)

    def _leaves_room(self, ids: Sequence[int], n_ctx: int) -> bool:
        room = n_ctx // 4
        max_tokens = self.params.max_tokens
        if max_tokens is not None and max_tokens >= 0:
            room = min(room, max_tokens)
        return len(ids) + max(1, room) <= n_ctx

    def request(self, plan: Plan, timeout_s: float | None) -> GenerationRequest:
        stops = dict.fromkeys((*self.params.stop, *self.template.stops))
        left_out = f"the {plan.dropped} oldest turns were left out to fit the context"
        return GenerationRequest(
            prompt=plan.ids,
            params=replace(self.params, stop=tuple(stops)),
            kind="chat",
            timeout_s=timeout_s,
            strip_leading_space=True,
            notes=(left_out,) if plan.dropped else (),
        )
