"""ChatTemplate: a conversation as text, made by the Jinja template that came with the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InvalidRequest
from .encode import SpecialTokens
from .message import Message, Prompt, Segment
from .traced import TEMPLATE, TracedStr, written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Template

# A template may build a control token from a role, as in '<|' + role + '|>'. These names are as
# good as the template's own text; any other role's name comes from outside and stays text.
ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))

# Texts with which the templates of well-known models end a turn.
TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
)


class HasTemplate(Protocol):
    """What is asked of a model's metadata."""

    @property
    def chat_template(self) -> str | None: ...


class TurnTokens(SpecialTokens, Protocol):
    """What is asked of a vocabulary: its special texts, and which tokens end an answer."""

    @property
    def eos(self) -> int | None: ...
    @property
    def eog(self) -> frozenset[int]: ...


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A Jinja chat template, rendered as transformers renders it.

    source: the template's text.
    bos_text, eos_text: the template's `bos_token` and `eos_token`.
    stops: texts that end an answer, besides those of the request.

    Only text that the template wrote can become a control token: its literals, `bos_token`,
    `eos_token` and the names of the usual roles, however it joins, trims, slices, splits or
    replaces them. Message text stays text through all of that, and other roles' names do too.

    Raises ModelFileError when the source is not a template that can be used; it names line and
    fault.
    """

    source: str
    bos_text: str = ""
    eos_text: str = ""
    stops: tuple[str, ...] = ()
    _template: Template = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from .sandbox import compile_template  # jinja2 is loaded when a template is wanted

        for name in ("source", "bos_text", "eos_text"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise InvalidRequest(
                    f"{name} must be a string, got {type(value).__name__}",
                    field=name,
                    value=value,
                    allowed="a string",
                )
        object.__setattr__(self, "_template", compile_template(self.source))

    @classmethod
    def from_model(cls, info: HasTemplate, vocabulary: TurnTokens) -> ChatTemplate | None:
        """The template in the model's file, or None where it has none.

        Its `stops` are the turn ends that the template writes out and that do not end an answer
        by themselves, because the vocabulary has no such token or does not count it among its end
        tokens. Nothing that a template does not write is ever a stop. Raises ModelFileError for a
        template that cannot be used.
        """
        source = info.chat_template
        if not source:
            return None
        texts = {token: text for text, token in vocabulary.special.items()}
        stops = tuple(
            text
            for text in TURN_ENDS
            if text in source and vocabulary.special.get(text) not in vocabulary.eog
        )
        return cls(
            source,
            bos_text=texts.get(vocabulary.bos, "") if vocabulary.bos is not None else "",
            eos_text=texts.get(vocabulary.eos, "") if vocabulary.eos is not None else "",
            stops=stops,
        )

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that asks for the assistant's next message after `messages`.

        `add_bos` is False when the template begins with the BOS text itself. Raises InvalidRequest
        with the template's own words when it refuses the messages (roles that must alternate, no
        system message), and ModelFileError when it leaves the sandbox or its budget.
        """
        from .sandbox import render_template

        text = render_template(
            self._template,
            self._variables(messages),
            sum(len(message.role) + len(message.content) for message in messages),
        )
        segments = _segments(text)
        begins_with_bos = bool(
            self.bos_text
            and segments
            and segments[0].special
            and segments[0].text.startswith(self.bos_text)
        )
        return Prompt(segments, add_bos=not begins_with_bos)

    def _variables(self, messages: Sequence[Message]) -> Mapping[str, Any]:
        return {
            "messages": [
                {"role": _role(message.role), "content": message.content} for message in messages
            ],
            "add_generation_prompt": True,
            "bos_token": written(self.bos_text),
            "eos_token": written(self.eos_text),
            # transformers passes both, and templates ask whether they are None
            "tools": None,
            "documents": None,
        }


def _role(role: str) -> str:
    return written(role) if role in ROLES else role


def _segments(text: TracedStr) -> tuple[Segment, ...]:
    """Runs of equal marks: neighbouring template text becomes one segment, so that a control
    token's text is found even where a template put it together from parts."""
    segments = []
    start = 0
    while start < len(text):
        mark = text.origin[start]
        end = text.origin.find(1 - mark, start)
        end = len(text) if end < 0 else end
        run = str.__getitem__(text, slice(start, end))
        segments.append(Segment(run, special=mark == TEMPLATE))
        start = end
    return tuple(segments)
