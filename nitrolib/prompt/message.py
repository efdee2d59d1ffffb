"""What a prompt is made of: messages before a template, segments after it. Plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made. `arguments` is the text of a JSON object, as the model wrote
    it; `id` is what the message with the result refers to."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `role` is usually "system", "user", "assistant" or "tool";
    `content` is plain text and can never become a control token, whatever it spells. The same
    holds for everything else in it.

    name: who speaks, or which tool answers; a template may show it or not.
    tool_calls: what an assistant's message calls; `content` may then be "".
    tool_call_id: which call a message of role "tool" answers.
    """

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of prompt text. With `special` the texts of control tokens inside it (`<s>`,
    `<|im_end|>`) become those tokens; without, it is text whatever it spells."""

    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """Segments in order. Control-token texts are looked for inside single segments, never across a
    seam; then neighbouring plain text is tokenized together, so that seams do not show in the
    tokens. With `add_bos` the model's BOS token goes in front, where the model wants one and the
    text does not begin with it already."""

    segments: tuple[Segment, ...]
    add_bos: bool = True

    @property
    def text(self) -> str:
        """The whole prompt as one string, seams forgotten: for people to read."""
        return "".join(segment.text for segment in self.segments)

    @classmethod
    def plain(cls, text: str) -> Prompt:
        """A prompt of message text alone: no control token can arise from it."""
        return cls((Segment(text, special=False),))
