"""The reference of the REST API for people: one page of HTML made from an OpenAPI document.

It needs no script and nothing from elsewhere, so that it works where there is no network.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["page"]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1rem;color:#222}
h1,h2,h3{line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid #ccc}
code,pre{font:14px/1.4 ui-monospace,monospace;background:#f4f4f4;border-radius:3px}
code{padding:0 .2em}pre{padding:.6rem;overflow:auto}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem;font-size:15px}
td,th{border:1px solid #ddd;padding:.25rem .5rem;text-align:left;vertical-align:top}
details{border:1px solid #ddd;border-radius:4px;margin:.4rem 0;padding:.3rem .7rem}
summary{cursor:pointer}nav a{margin-right:1rem}
.m{display:inline-block;min-width:4.5rem;font-weight:600}.r{color:#a00}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}a{color:#8bf}
code,pre{background:#2a2a2a}td,th,details{border-color:#444}h2{border-color:#555}.r{color:#f88}}
"""
_HIDDEN = frozenset({"options"})  # every path has it


def page(document: Mapping[str, Any], dialects: Sequence[str], shown: str | None) -> str:
    """The page of *document*. dialects: those that have a page of their own; shown: the one of
    which this is, None for all of them."""
    title = _text(document["info"]["title"])
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        _navigation(dialects, shown),
        _prose(document["info"].get("description", "")),
        *_Page(document).sections(),
        "</body></html>",
    ]
    return "\n".join(parts)


class _Page:
    """The parts of a page that refer to the schemas of its document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def sections(self) -> Iterator[str]:
        for tag, operations in self._by_tag().items():
            yield f'<h2 id="{_anchor(tag)}">{_text(tag)}</h2>'
            for path, method, operation in operations:
                yield self._operation(path, method, operation)
        yield '<h2 id="schemas">Schemas</h2>'
        for name, schema in self._document["components"].get("schemas", {}).items():
            yield f'<details id="{_anchor("schema", name)}"><summary><code>{_text(name)}</code>'
            yield f"</summary>{self._schema(schema)}</details>"

    def _by_tag(self) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
        found: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
        for path, item in self._document["paths"].items():
            for method, operation in item.items():
                if method not in _HIDDEN and isinstance(operation, dict):
                    tag = operation.get("tags", ["Other"])[0]
                    found.setdefault(tag, []).append((path, method, operation))
        return found

    def _operation(self, path: str, method: str, operation: Mapping[str, Any]) -> str:
        name = operation.get("operationId", f"{method}-{path}")
        parts = [
            f'<details id="{_anchor("operation", name)}"><summary>',
            f'<span class="m">{method.upper()}</span><code>{_text(path)}</code> ',
            f"{_text(operation.get('summary', ''))}</summary>",
            _prose(operation.get("description", "")),
        ]
        if parameters := [self._target(one) for one in operation.get("parameters", [])]:
            parts += ["<h4>Parameters</h4>", self._parameters(parameters)]
        if "requestBody" in operation:
            parts += ["<h4>Request</h4>", self._content(self._target(operation["requestBody"]))]
        parts.append("<h4>Answers</h4>")
        for status, response in operation["responses"].items():
            told = self._target(response)
            parts.append(f"<p><code>{_text(status)}</code> {_inline(told.get('description', ''))}")
            parts.append(self._links(told) + "</p>")
        return "".join([*parts, "</details>"])

    def _parameters(self, parameters: Iterable[Mapping[str, Any]]) -> str:
        rows = (
            (
                f"<code>{_text(one['name'])}</code>{_required(one.get('required', False))}",
                _text(one["in"]),
                self._type(one.get("schema", {})),
                _inline(one.get("description", "")) + _limits(self._target(one.get("schema", {}))),
            )
            for one in parameters
        )
        return _table(("Name", "In", "Type", ""), rows)

    def _content(self, body: Mapping[str, Any]) -> str:
        parts = [_prose(body.get("description", ""))]
        for media, content in body.get("content", {}).items():
            schema = content.get("schema", {})
            parts.append(f"<p><code>{_text(media)}</code> {self._type(schema)}</p>")
            if "$ref" not in schema:
                parts.append(self._schema(schema))
            examples = [one.get("value") for one in content.get("examples", {}).values()]
            parts += map(_json, [content["example"]] if "example" in content else examples)
        return "".join(parts)

    def _links(self, response: Mapping[str, Any]) -> str:
        kinds = (
            f" <code>{_text(media)}</code> {self._type(content.get('schema', {}))}"
            for media, content in response.get("content", {}).items()
        )
        return "".join(kinds)

    def _schema(self, schema: Mapping[str, Any]) -> str:
        """What a schema says, its fields as a table."""
        parts = [_prose(schema.get("description", ""))]
        if bases := [one for one in schema.get("allOf", []) if "$ref" in one]:
            parts.append(f"<p>All of {', '.join(self._type(one) for one in bases)}, and:</p>")
        required = set(schema.get("required", []))
        fields = dict(schema.get("properties", {}))
        for one in schema.get("allOf", []):
            fields |= one.get("properties", {})
            required |= set(one.get("required", []))
        if fields:
            rows = (self._field(name, one, name in required) for name, one in fields.items())
            parts.append(_table(("Field", "Type", "Default", ""), rows))
        elif "type" in schema or "anyOf" in schema or "oneOf" in schema or "$ref" in schema:
            parts.append(f"<p>{self._type(schema)}{_limits(schema)}</p>")
        return "".join(parts)

    def _field(self, name: str, field: Mapping[str, Any], required: bool) -> tuple[str, ...]:
        told = {**self._target(field), **field}
        default = f"<code>{_text(_short(told['default']))}</code>" if "default" in told else ""
        about = _inline(told.get("description", "")) + _limits(told)
        return f"<code>{_text(name)}</code>{_required(required)}", self._type(field), default, about

    def _type(self, schema: Mapping[str, Any]) -> str:
        """The type of a value, in words, with links to schemas."""
        if "$ref" in schema:
            name = schema["$ref"].split("/")[3]
            if schema["$ref"].count("/") == 3:
                return f'<a href="#{_anchor("schema", name)}">{_text(name)}</a>'
            return self._type(self._target(schema))
        for word in ("anyOf", "oneOf"):
            if word in schema:
                kinds = dict.fromkeys(self._type(one) for one in schema[word])
                return " or ".join(kinds)
        if "enum" in schema:
            return " or ".join(f"<code>{_text(_short(one))}</code>" for one in schema["enum"])
        if "const" in schema:
            return f"<code>{_text(_short(schema['const']))}</code>"
        given = schema.get("type", "any")
        types = [given] if isinstance(given, str) else given
        of = f" of {self._type(schema['items'])}" if schema.get("items") else ""
        return " or ".join(_text(kind) + (of if kind == "array" else "") for kind in types)

    def _target(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """What *node* refers to, or itself."""
        while "$ref" in node:
            found: Any = self._document
            for part in node["$ref"].split("/")[1:]:
                found = found[part.replace("~1", "/").replace("~0", "~")]
            node = found
        return node


_LIMITS = {
    "minimum": "least {}",
    "maximum": "most {}",
    "exclusiveMinimum": "above {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} members",
    "pattern": "matches {}",
}


def _limits(schema: Mapping[str, Any]) -> str:
    told = [text.format(schema[name]) for name, text in _LIMITS.items() if name in schema]
    return f" <small>({_text(', '.join(told))})</small>" if told else ""


def _navigation(dialects: Sequence[str], shown: str | None) -> str:
    links = [("All", "/docs", shown is None)]
    links += [(name, f"/docs/{name}", shown == name) for name in dialects]
    made = (
        f"<b>{_text(name)}</b> " if here else f'<a href="{_text(link)}">{_text(name)}</a> '
        for name, link, here in links
    )
    document = "/openapi.json" if shown is None else f"/openapi/{shown}.json"
    return f'<nav>{"".join(made)}<a href="{_text(document)}">OpenAPI</a></nav>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{_text(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{one}</td>" for one in row) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{body}</table>"


def _required(required: bool) -> str:
    return ' <span class="r" title="required">*</span>' if required else ""


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(one)}</p>" for one in text.split("\n\n") if one.strip())


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _json(value: Any) -> str:
    return f"<pre>{_text(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _anchor(*parts: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-").lower()


def _text(text: object) -> str:
    return html.escape(str(text))
