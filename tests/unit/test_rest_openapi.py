"""The documents that a server shows are whole, stand alone, and are what it does."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from support.rest_client import Rest

from nitrolib.adapters.rest import openapi
from nitrolib.adapters.rest.dialects import DIALECTS, load
from nitrolib.adapters.rest.openapi import COMMON, merged, operations
from nitrolib.adapters.rest.reference import page
from nitrolib.validation import document

if TYPE_CHECKING:
    from collections.abc import Iterator

SPOKEN = load(DIALECTS)
NAMES = [dialect.name for dialect in SPOKEN]
DOCUMENTS = [dialect.document for dialect in SPOKEN]
SETS = [DOCUMENTS, *([name] for name in DOCUMENTS)]


def _ids(names: Any) -> str:
    return "-".join(names)


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from walk(item)


def shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}|<[^>]*>", "{}", path)


# ---- the documents and the routes ----------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_dialect_documents_every_route_it_has_and_no_other(name: str) -> None:
    """Both ways: rules of its blueprint against its own document, the server's against the common
    one."""
    app = Rest(dialects=(name,)).app
    served: dict[str, set[tuple[str, str]]] = {name: set(), COMMON: set()}
    for rule in app.url_map.iter_rules():
        owner = rule.endpoint.rpartition(".")[0] or COMMON
        methods = {method.lower() for method in rule.methods or ()} - {"head"}
        served[owner] |= {(shape(rule.rule), method) for method in methods | {"options"}}
    dialect = load((name,))[0]
    for owner, text in ((name, dialect.document), (COMMON, COMMON)):
        told = {(shape(path), method) for path, method, _ in operations(document(text))}
        assert served[owner] == told


def test_several_dialects_together_serve_all_that_their_document_tells() -> None:
    app = Rest(dialects=tuple(NAMES)).app
    whole = Rest(dialects=tuple(NAMES)).get("/openapi.json").json
    served = {
        (shape(rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    told = {(shape(path), method) for path, method, _ in operations(whole)}
    assert served <= told
    assert {method for _, method in told - served} <= {"options"}


# ---- merging -------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", SETS, ids=_ids)
def test_a_document_stands_alone_and_its_schemas_are_valid(names: list[str]) -> None:
    whole = merged(names)
    for node in walk(whole):
        if isinstance(node.get("$ref"), str):
            target = whole
            assert node["$ref"].startswith("#/components/")
            for part in node["$ref"].split("/")[1:]:
                target = target[part.replace("~1", "/").replace("~0", "~")]
    for section in whole["components"].values():
        for name in section:
            assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    for body in whole["components"]["schemas"].values():
        Draft202012Validator.check_schema(body)


@pytest.mark.parametrize("names", SETS, ids=_ids)
def test_every_operation_is_whole(names: list[str]) -> None:
    whole = merged(names)
    ids = [one["operationId"] for _, method, one in operations(whole) if method != "options"]
    assert len(set(ids)) == len(ids)
    schemes = whole["components"]["securitySchemes"]
    assert {name for way in whole["security"] for name in way} <= set(schemes)
    tags = {tag["name"] for tag in whole["tags"]}
    for path, method, operation in operations(whole):
        where = (path, method)
        assert operation.get("summary"), where
        assert set(operation["tags"]) <= tags, where
        given = {p["name"] for p in operation.get("parameters", []) if p.get("in") == "path"}
        assert method == "options" or given == set(re.findall(r"\{([^}]*)\}", path)), where
        statuses = set(operation["responses"])
        assert "403" in statuses, where
        if method != "options" and operation.get("security") != []:
            assert {"401", "429"} <= statuses, where
        if "requestBody" in operation:
            assert {"400", "413"} <= statuses, where
        if method == "options" and "{" in path:  # not every text makes a path that is there
            assert "404" in statuses, where
        if any(one.get("in") == "query" for one in operation.get("parameters", [])):
            assert "414" in statuses, where


def test_what_two_documents_call_the_same_gets_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = {
        "one": _document({"/a/{x}": _item("get", "op", "one")}),
        "two": _document(
            {"/a/{y}": {**_item("get", "op", "two"), **_item("post", "op", "two", "y")}}
        ),
        COMMON: _document({}),
    }
    monkeypatch.setattr(openapi, "document", documents.__getitem__)
    whole = merged(["one", "two"])
    item = whole["paths"]["/a/{x}"]
    assert list(whole["paths"]) == ["/a/{x}"]
    assert item["get"]["summary"] == "one"  # the earlier document's
    assert item["post"]["parameters"][0]["name"] == "x"
    assert (item["get"]["operationId"], item["post"]["operationId"]) == ("op", "two_op")
    schema = item["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/two.S/properties/p"}
    assert whole["components"]["schemas"]["two.S"]["title"] == "of two"
    assert whole["components"]["schemas"]["S"]["title"] == "of one"


def _document(paths: dict[str, Any]) -> dict[str, Any]:
    title = next((op["summary"] for item in paths.values() for op in item.values()), "common")
    schema = {"title": f"of {title}", "properties": {"p": {"default": {"$ref": "kept as it is"}}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": ""},
        "jsonSchemaDialect": "x",
        "paths": paths,
        "components": {"schemas": {"S": schema}},
    }


def _item(method: str, name: str, summary: str, variable: str = "x") -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/S/properties/p"}
    return {
        method: {
            "operationId": name,
            "summary": summary,
            "parameters": [{"name": variable, "in": "path"}],
            "responses": {"200": {"content": {"application/json": {"schema": schema}}}},
        }
    }


# ---- the routes of the documents -----------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_dialect_has_a_document_and_a_page_of_its_own(name: str) -> None:
    rest = Rest(dialects=tuple(NAMES))
    answer = rest.get(f"/openapi/{name}.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == merged([load((name,))[0].document])
    page = rest.get(f"/docs/{name}")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_a_dialect_that_is_not_served_has_neither() -> None:
    rest = Rest(dialects=("nitro",))
    for path in ("/openapi/jan.json", "/docs/jan", "/openapi/..json", "/docs/%3Cb%3E"):
        assert rest.get(path).status == 404, path


# ---- the page ------------------------------------------------------------------------------------

_VOID = {"meta", "link", "br", "img"}


class _Reader(HTMLParser):
    """Fails for tags that do not nest; gathers links, ids and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "iframe", "object", "link"), tag
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("names", SETS, ids=_ids)
def test_a_page_tells_every_operation_and_every_field(names: list[str]) -> None:
    whole = merged(names)
    reader = _read(page(whole, NAMES, None))
    assert len(set(reader.ids)) == len(reader.ids)
    for path, method, operation in operations(whole):
        if method != "options":
            assert path in reader.text
            assert operation["summary"] in reader.text
    for body in whole["components"]["schemas"].values():
        for field in body.get("properties", {}):
            assert field in reader.text


@pytest.mark.parametrize("names", SETS, ids=_ids)
def test_a_page_needs_nothing_from_elsewhere_and_its_links_lead_somewhere(
    names: list[str],
) -> None:
    reader = _read(page(merged(names), NAMES, None))
    known = {"/docs", "/openapi.json", *(f"/docs/{name}" for name in NAMES)}
    for link in reader.links:
        assert link in known or (link.startswith("#") and link[1:] in reader.ids), link


def test_what_a_document_says_never_becomes_markup() -> None:
    evil = '<script>alert("x")</script>'
    operation = {
        "tags": [evil],
        "summary": evil,
        "description": f"{evil} `{evil}`",
        "operationId": evil,
        "parameters": [{"name": evil, "in": evil, "description": evil, "schema": {"enum": [evil]}}],
        "requestBody": {"content": {evil: {"schema": {"const": evil}, "example": evil}}},
        "responses": {evil: {"description": evil, "content": {evil: {}}}},
    }
    schema = {"description": evil, "properties": {evil: {"type": evil, "default": evil}}}
    whole = {
        "info": {"title": evil, "description": evil},
        "paths": {evil: {"get": operation}},
        "components": {"schemas": {evil: schema}},
    }
    _read(page(whole, [evil], evil))
