"""ChatTemplate: a conversation as text, made by the Jinja template that came with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InvalidRequest
from .encode import SpecialTokens
from .history import check_final
from .message import Message, Prompt, Segment
from .traced import TEMPLATE, TracedStr, written
from .variables import Dialect, message_data, template_kwargs, tool_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Template

    from .tools import Tool

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

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **chat_template_kwargs: Any,
    ) -> Prompt:
        """The prompt that asks for the assistant's next message after `messages`.

        tools: what the template shows as callable; whether it does is the template's own affair
            (`prepare_chat` finds out).
        add_generation_prompt: False leaves out the beginning of the assistant's message.
        continue_final_message: the prompt ends inside the last message, which the model goes on
            with; `add_generation_prompt` must then be False.
        chat_template_kwargs: more variables for the template (`enable_thinking`, `documents`),
            plain data. Their texts cannot become control tokens.

        `add_bos` is False when the template begins with the BOS text itself. Raises InvalidRequest
        with the template's own words when it refuses the messages (roles that must alternate, no
        system message), and ModelFileError when it leaves the sandbox or its budget.
        """
        from .traits import dialect_of

        extra = template_kwargs(chat_template_kwargs)
        if continue_final_message:
            messages = _marked(messages, add_generation_prompt)
        text = self.rendered(
            messages,
            tools=tools,
            dialect=dialect_of(self),
            add_generation_prompt=add_generation_prompt,
            extra=extra,
        )
        if continue_final_message:
            text = _cut(text, messages[-1].content)
        segments = _segments(text)
        begins_with_bos = bool(
            self.bos_text
            and segments
            and segments[0].special
            and segments[0].text.startswith(self.bos_text)
        )
        return Prompt(segments, add_bos=not begins_with_bos)

    def rendered(
        self,
        messages: Sequence[Message],
        *,
        dialect: Dialect,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> TracedStr:
        """The text with its marks, before it is cut into segments; errors as in `render`."""
        from .sandbox import render_template

        variables = {
            "messages": message_data(messages, dialect),
            "tools": tool_data(tools),
            "documents": None,  # transformers passes it, and templates ask whether it is None
            "add_generation_prompt": add_generation_prompt,
            "bos_token": written(self.bos_text),
            "eos_token": written(self.eos_text),
            **(extra or {}),
        }
        return render_template(self._template, variables, _size(variables))


# What transformers puts behind the last message to find its end again. The space tells whether the
# template trimmed the message.
_END_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


def _marked(messages: Sequence[Message], add_generation_prompt: bool) -> list[Message]:
    check_final(messages, add_generation_prompt)
    *before, last = messages
    return [*before, replace(last, content=last.content + _END_TAG)]


def _cut(text: TracedStr, content: str) -> TracedStr:
    """The text up to the end of the marked message."""
    tag = _END_TAG.strip()
    at = text.rfind(tag)
    if at < 0 or content.removesuffix(_END_TAG).strip() not in text:
        raise InvalidRequest(
            "the final message cannot be continued: the chat template changes or drops it",
            field="continue_final_message",
            value=True,
            allowed="a final message that the template shows as it is",
        )
    kept = text[:at]
    return kept if text.startswith(_END_TAG, at) else kept.rstrip()


def _size(value: Any) -> int:
    """Characters of text in plain data, for the budget."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value)) + sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0


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
