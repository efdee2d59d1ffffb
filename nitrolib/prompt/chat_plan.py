"""prepare_chat: everything that a conversation with tools asks of an engine, for any template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .call_events import new_call_id
from .call_grammar import call_grammar, plain_json_rule
from .call_parser import ToolCallParser
from .call_syntax import HERMES, CallSyntax, recognise
from .chat_template import ChatTemplate
from .generic_tools import instructions, plain_messages
from .history import check_history
from .tools import check_tools, read_tool_choice
from .traits import traits_of
from .variables import template_kwargs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .call_grammar import JsonRule
    from .message import Message, Prompt
    from .tools import Tool, ToolChoice


_IN_PLAIN_TEXT = (
    "tools are described in plain text: the chat template has no place for them, or writes calls "
    "in a form that is not known here"
)


class Template(Protocol):
    """What makes a prompt of messages: ChatTemplate, PromptTemplate, or one's own."""

    @property
    def stops(self) -> tuple[str, ...]: ...

    def render(self, messages: Sequence[Message]) -> Prompt: ...


class TokenTexts(Protocol):
    """What is asked of a vocabulary."""

    @property
    def special(self) -> Mapping[str, int]: ...
    @property
    def pieces(self) -> Sequence[bytes]: ...


@dataclass(frozen=True, slots=True)
class Trigger:
    """What begins a call in an answer that may also be text; from there on a grammar holds, and it
    begins with these characters.

    text: as it stands in the answer. With `at_start` it counts only at the answer's beginning,
        white space before it aside.
    token: the control token whose text it is; None for ordinary text.
    """

    text: str
    token: int | None = None
    at_start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPlan:
    """One prompt, and how the answer is held to its tools and read.

    prompt, stops: what goes to the engine.
    format: how calls look in the answer; None where none may be in it.
    native: whether that is the model's own form, made by its template.
    names: the tools that may be called; many: whether by more than one call.
    constraint: a grammar of calls in llguidance's Lark dialect, or None.
    trigger: None where the whole answer obeys `constraint`; else what it begins to hold at.
    shown: control tokens whose texts the parser must see, by id: as text they would be nothing.
    notes: what of the request had no effect, or was done in another form.
    """

    prompt: Prompt
    stops: tuple[str, ...]
    format: CallSyntax | None = None
    native: bool = False
    names: tuple[str, ...] = ()
    many: bool = True
    constraint: str | None = None
    trigger: Trigger | None = None
    shown: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()

    def parser(
        self, *, constrained: bool = True, new_id: Callable[[], str] = new_call_id
    ) -> ToolCallParser | None:
        """A parser for one answer; None where the answer is text and nothing else. `constrained`:
        the grammar is in force (from the trigger on, where there is one)."""
        if self.format is None:
            return None
        return ToolCallParser(
            self.format, self.names, many=self.many, constrained=constrained, new_id=new_id
        )


def prepare_chat(
    template: Template,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    tool_choice: Any = None,
    parallel: bool = True,
    vocabulary: TokenTexts | None = None,
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    json_rule: JsonRule = plain_json_rule,
) -> ChatPlan:
    """The plan for the answer to `messages`, with whatever template.

    A chat template that shows tools, calls and results, and writes calls in a known way, gets
    them as they are. For any other the conversation is rewritten (docs/tools.md).

    tool_choice: a ToolChoice, or what OpenAI's clients send; None is "auto" with tools. Under
        "none" the model is shown no tools.
    parallel: False for one call at most.
    vocabulary: the model's; without it control tokens are taken for ordinary text.
    json_rule: checks and writes the schemas of the grammar.

    Raises InvalidRequest naming the place for bad tools, choices, histories and variables, and
    what `render` and `json_rule` raise.
    """
    check_history(messages)
    tools = check_tools(tools)
    choice = read_tool_choice(tool_choice, tools)
    options = _options(add_generation_prompt, continue_final_message, chat_template_kwargs)
    called = {
        f"tools[{index}].function.parameters": tool
        for index, tool in enumerate(tools)
        if tool in choice.of(tools)
    }
    notes = _unread(template, chat_template_kwargs or {})
    if not called and not _has_calls(messages):
        prompt = template.render(messages, **options)
        return ChatPlan(prompt=prompt, stops=template.stops, notes=notes)
    own = recognise(traits_of(template)) if isinstance(template, ChatTemplate) else None
    if own is not None:
        prompt = template.render(messages, **options, **({"tools": tools} if called else {}))
    else:
        prompt = template.render(_plain(template, messages, tools, choice, parallel), **options)
        notes += (_IN_PLAIN_TEXT,)
    if not called:
        return ChatPlan(prompt=prompt, stops=template.stops, notes=notes)
    syntax = own or HERMES
    control = _control(syntax, vocabulary)
    grammar = call_grammar(
        syntax,
        called,
        many=parallel,
        control=control,
        spelled=own is None,
        json_rule=json_rule,
    )
    token = control.get(syntax.marker)
    return ChatPlan(
        prompt=prompt,
        stops=template.stops,
        format=syntax,
        native=own is not None,
        names=tuple(tool.name for tool in called.values()),
        many=parallel and syntax.many,
        constraint=grammar,
        trigger=None
        if choice.must_call
        else Trigger(syntax.trigger, token, at_start=not syntax.marker),
        shown=tuple((token, text) for text, token in control.items()),
        notes=notes,
    )


def _options(
    add_generation_prompt: bool,
    continue_final_message: bool,
    kwargs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Arguments of `render` that are not the defaults: a template of one's own may have none."""
    options = template_kwargs(kwargs or {})
    if not add_generation_prompt:
        options["add_generation_prompt"] = False
    if continue_final_message:
        options["continue_final_message"] = True
    return options


def _unread(template: Template, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """A note for every variable that the chat template does not know."""
    if not isinstance(template, ChatTemplate):
        return ()
    return tuple(
        f"chat_template_kwargs.{name}: the model's chat template does not read it"
        for name in kwargs
        if not re.search(rf"\b{re.escape(name)}\b", template.source)
    )


def _has_calls(messages: Sequence[Message]) -> bool:
    return any(message.tool_calls or message.role == "tool" for message in messages)


def _plain(
    template: Template,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    choice: ToolChoice,
    parallel: bool,
) -> list[Message]:
    shown = choice.mode != "none"
    told = instructions(tools, choice, many=parallel) if shown else ""
    system = traits_of(template).system if isinstance(template, ChatTemplate) else True
    return plain_messages(messages, told, system=system)


def _control(syntax: CallSyntax, vocabulary: TokenTexts | None) -> dict[str, int]:
    """The control tokens among the texts of a syntax: tokens that add nothing to a text."""
    if vocabulary is None:
        return {}
    texts = (
        *syntax.begin, *syntax.call_begin, *(syntax.between or ()), *syntax.call_end, *syntax.end,
    )  # fmt: skip
    return {
        text: vocabulary.special[text]
        for text in texts
        if text in vocabulary.special and not vocabulary.pieces[vocabulary.special[text]]
    }
