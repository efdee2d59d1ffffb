"""PromptTemplate: a conversation as text between four fixed prompts, as Nitro clients say it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import InvalidRequest, Unsupported
from .history import check_final
from .message import Message, Prompt, Segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .tools import Tool

Style = Literal["auto", "seed", "verbatim", "nitro-0.1.20"]

PRE_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant follows the given rules no matter what."
)
SYSTEM_PROMPT = "ASSISTANT's RULE:"
USER_PROMPT = "USER:"
AI_PROMPT = "ASSISTANT:"

# How the text between a system message and a user message ends the former: a tag that says so
# (<|im_end|>, </s>, <end_of_turn>), or line breaks. Something of the user's own must follow.
_CLOSING = re.compile(
    r"\s*(?:</\w+>|<\|?\w*(?:end|eot|eom)\w*\|?>)\s*(?=\S)|\s*\n\s*(?=\S)(?!<</)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """Four prompts and a style; `render` puts the messages between them.

    pre_prompt: the fixed beginning of every prompt; "" for none.
    system_prompt, user_prompt, ai_prompt: what stands before a message of that role. `ai_prompt`
        also ends the prompt. A message of any other role has its role's name before it.
    style: "seed" puts one space between a prefix and its content, and a newline after the
        pre-prompt and after every message. "verbatim" puts nothing anywhere: the prefixes carry
        their own newlines, as ChatML needs. "auto" is "seed" while the three prefixes are the
        defaults, else "verbatim". "nitro-0.1.20" is that release's rule to the byte: nothing
        between, and each system message in front of everything before it, pre-prompt included.
    closing: what `user_prompt` and `ai_prompt` begin with to end the message before them (for
        ChatML, "<|im_end|>\\n"); left out where no message stands before. Usually "".

    None for one of the four prompts means its default. Control-token texts in the four prompts
    become control tokens; in roles and contents they stay text. Raises InvalidRequest for a field
    that is not a string or a style that does not exist.
    """

    pre_prompt: str = PRE_PROMPT
    system_prompt: str = SYSTEM_PROMPT
    user_prompt: str = USER_PROMPT
    ai_prompt: str = AI_PROMPT
    style: Style = "auto"
    closing: str = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None and each.name.endswith("_prompt"):
                object.__setattr__(self, each.name, each.default)
            elif not isinstance(value, str):
                raise InvalidRequest(
                    f"{each.name} must be a string, got {type(value).__name__}",
                    field=each.name,
                    value=value,
                    allowed="a string",
                )
        if self.style not in get_args(Style):
            raise InvalidRequest(
                f"style {self.style!r} does not exist",
                field="style",
                value=self.style,
                allowed=", ".join(get_args(Style)),
            )

    @classmethod
    def from_prompt_template(cls, text: str) -> PromptTemplate:
        """Split a one-string template at "{system_message}" and "{prompt}".

        With both markers: system prompt, user prompt and AI prompt are the texts before, between
        and after them. With "{prompt}" alone: user prompt and AI prompt, and the system prompt
        keeps its default. The pre-prompt is empty and the style verbatim. The end of the system
        block ("<|im_end|>\\n" in ChatML) is left out of a prompt that has no system message.

        Raises InvalidRequest without "{prompt}", with a marker twice, or with the two the wrong
        way round.
        """
        if not isinstance(text, str):
            raise _cannot_split(text, "it is not a string")
        for marker in ("{system_message}", "{prompt}"):
            if text.count(marker) > 1:
                raise _cannot_split(text, f"{marker} stands in it more than once")
        before, prompt_marker, after = text.partition("{prompt}")
        if not prompt_marker:
            raise _cannot_split(text, "{prompt} is missing")
        if "{system_message}" in after:
            raise _cannot_split(text, "{prompt} stands before {system_message}")
        system, system_marker, user = before.partition("{system_message}")
        if not system_marker:
            return cls(pre_prompt="", user_prompt=before, ai_prompt=after, style="verbatim")
        tail = _CLOSING.match(user)
        return cls(
            pre_prompt="",
            system_prompt=system,
            user_prompt=user,
            ai_prompt=after,
            style="verbatim",
            closing=tail.group() if tail else "",
        )

    @property
    def is_seed_style(self) -> bool:
        """Whether a space and newlines are put between the parts."""
        if self.style != "auto":
            return self.style == "seed"
        prefixes = (self.system_prompt, self.user_prompt, self.ai_prompt)
        return prefixes == (SYSTEM_PROMPT, USER_PROMPT, AI_PROMPT)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer, besides those of the request, which come first."""
        candidates = ("<|im_end|>", self.user_prompt.rstrip(" \t\n"))
        return tuple(dict.fromkeys(text for text in candidates if text))

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **chat_template_kwargs: Any,
    ) -> Prompt:
        """The prompt that asks for the assistant's next message after `messages`, which may begin
        with any role; contents are never trimmed.

        add_generation_prompt: False leaves out the `ai_prompt` at the end.
        continue_final_message: the prompt ends with the last message's content; then
            `add_generation_prompt` must be False.

        Raises Unsupported for tools, calls in messages (`prepare_chat` has a form for them) and
        other variables: there is no place for them here.
        """
        _check_place(messages, tools, chat_template_kwargs)
        if continue_final_message:
            check_final(messages, add_generation_prompt)
        as_nitro = self.style == "nitro-0.1.20"
        parts = self._as_nitro_did(messages) if as_nitro else self._in_order(messages)
        if continue_final_message:
            return _prompt(_up_to(messages[-1], parts))
        if add_generation_prompt:
            parts += self._prefix("assistant", first=not parts and not as_nitro)
        return _prompt(parts)

    def _in_order(self, messages: Sequence[Message]) -> list[Segment]:
        content_sep, turn_sep = (" ", "\n") if self.is_seed_style else ("", "")
        parts = [Segment(self.pre_prompt + turn_sep, special=True)] if self.pre_prompt else []
        for message in sorted(messages, key=lambda message: message.role != "system"):
            parts += [
                *self._prefix(message.role, content_sep, first=not parts),
                Segment(message.content, special=False),
                Segment(turn_sep, special=True),
            ]
        return parts

    def _as_nitro_did(self, messages: Sequence[Message]) -> list[Segment]:
        parts = [Segment(self.pre_prompt, special=True)]
        for message in messages:
            turn = [*self._prefix(message.role), Segment(message.content, special=False)]
            parts = turn + parts if message.role == "system" else parts + turn
        return parts

    def _prefix(self, role: str, content_sep: str = "", *, first: bool = False) -> list[Segment]:
        prefix = {
            "system": self.system_prompt,
            "user": self.user_prompt,
            "assistant": self.ai_prompt,
        }.get(role)
        if prefix is None:  # the role's name comes from the request: text, never a control token
            return [Segment(role, special=False), Segment(content_sep, special=True)]
        if first and self.closing:
            prefix = prefix.removeprefix(self.closing)
        return [Segment(prefix + content_sep, special=True)]


def _check_place(
    messages: Sequence[Message], tools: Sequence[Tool] | None, kwargs: Mapping[str, Any]
) -> None:
    """Raise Unsupported for what a prompt template cannot show."""
    fields = [f"chat_template_kwargs.{name}" for name in kwargs]
    fields += ["tools"] if tools else []
    fields += [
        f"messages[{index}].tool_calls"
        for index, message in enumerate(messages)
        if message.tool_calls
    ]
    if fields:
        raise Unsupported(
            f"a prompt template has no place for {fields[0]}",
            field=fields[0],
            allowed="nothing here",
        )


def _up_to(message: Message, parts: list[Segment]) -> list[Segment]:
    """The parts up to the content of the last message."""
    if message.role == "system":
        raise InvalidRequest(
            "a system message cannot be continued: a prompt template puts it first",
            field="continue_final_message",
            value=True,
            allowed="a last message of another role",
        )
    while parts[-1].special:
        parts = parts[:-1]
    return parts


def _prompt(parts: list[Segment]) -> Prompt:
    return Prompt(tuple(part for part in parts if part.text))


def _cannot_split(text: object, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"Cannot split prompt template: {reason}",
        field="prompt_template",
        value=text,
        allowed='a text with "{prompt}", and "{system_message}" before it or not at all',
    )
