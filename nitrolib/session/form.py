"""A session as JSON data, and back."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from ..prompt import ChatTemplate, Part, PromptTemplate
from ..prompt.continuation import Evaluated
from ..sampling import SamplingParams
from .history import Exchange, Past, check_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import Template
    from .session import ChatSession

_TEMPLATES: dict[str, type[PromptTemplate] | type[ChatTemplate]] = {
    "PromptTemplate": PromptTemplate,
    "ChatTemplate": ChatTemplate,
}


def content_of(session: ChatSession, exchanges: Past) -> dict[str, Any]:
    """Everything about a session that a file keeps: messages, settings, and the token ids of the
    last exchange. Raises InvalidRequest for a template of a class of somebody's own."""
    last = exchanges[-1] if exchanges else None
    return {
        "system": session.system,
        "template": _template_out(session.template),
        "params": asdict(session.params),
        "context_policy": session.context_policy,
        "turns": [
            {"user": each.user, "assistant": each.assistant, "dropped": each.dropped}
            for each in exchanges
        ],
        "vocabulary": last.vocabulary if last else "",
        "evaluated": asdict(last.evaluated) if last and last.evaluated else None,
    }


def read_content(content: Mapping[str, Any]) -> tuple[dict[str, Any], Past]:
    """The settings of a session and its exchanges. Raises KeyError, TypeError, ValueError,
    AttributeError or a NitroError where the content is not what `content_of` gives."""
    settings = {
        "system": content["system"],
        "template": _template_in(content["template"]),
        "params": SamplingParams(**_tuples(content["params"])),
        "context_policy": content["context_policy"],
    }
    return settings, _exchanges_in(content)


def _template_out(template: Template | None) -> dict[str, Any] | None:
    if template is None:
        return None
    name = type(template).__name__
    if _TEMPLATES.get(name) is not type(template):  # a subclass would come back as another class
        raise InvalidRequest(
            f"a {name} cannot be saved",
            field="template",
            value=template,
            allowed="a PromptTemplate, a ChatTemplate, or None",
        )
    settings = [each.name for each in fields(_TEMPLATES[name]) if each.init]
    return {"class": name, **{each: getattr(template, each) for each in settings}}


def _template_in(data: dict[str, Any] | None) -> Template | None:
    if data is None:
        return None
    values = _tuples(data)
    return _TEMPLATES[values.pop("class")](**values)


def _exchanges_in(content: Mapping[str, Any]) -> tuple[Exchange, ...]:
    exchanges = []
    for index, turn in enumerate(content["turns"]):
        for name in ("user", "assistant"):
            check_text(f"turns[{index}].{name}", turn[name])
        dropped = turn["dropped"]
        if not isinstance(dropped, int) or not 0 <= dropped <= index:
            raise ValueError(f"turns[{index}].dropped is {dropped!r}")
        exchanges.append(Exchange(turn["user"], turn["assistant"], dropped))
    saved = content["evaluated"]
    if exchanges and saved is not None:
        evaluated = Evaluated(
            tuple(map(_part, saved["parts"])),
            tuple(map(int, saved["prompt_ids"])),
            tuple(map(int, saved["answer_ids"])),
        )
        exchanges[-1] = replace(
            exchanges[-1], evaluated=evaluated, vocabulary=content["vocabulary"]
        )
    return tuple(exchanges)


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where parameters have tuples."""
    return {name: _tuple(value) for name, value in data.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def _part(value: Any) -> Part:
    if not isinstance(value, (int, str)):
        raise TypeError(f"evaluated.parts holds {value!r}")
    return value
