"""Validators made from the bundled schemas: pointer, value, rule, and what is allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from nitrolib import validation
from nitrolib.errors import InvalidRequest
from nitrolib.validation import Schema, document, document_text, resolve, schema, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = json.loads(document_text("nitro"))
CHAT = schema("nitro", "ChatCompletionRequest")
EMBED = schema("nitro", "EmbeddingsRequest")
LOAD = schema("nitro", "LoadModelRequest")
HELLO = [{"role": "user", "content": "Hello"}]


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from _walk(item)


def test_the_schemas_of_the_document_are_valid_and_its_references_lead_somewhere() -> None:
    for name, body in DOCUMENT["components"]["schemas"].items():
        Draft202012Validator.check_schema(body)
        assert schema("nitro", name).properties <= set(body["properties"])
    for node in _walk(DOCUMENT):
        if "$ref" in node:
            target = DOCUMENT
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]


NAMES = [
    one.name.removesuffix(".json")
    for one in resources.files("nitrolib.schemas").iterdir()
    if one.name.endswith(".json")
]


@pytest.mark.parametrize("name", NAMES)
def test_references_of_fields_lead_somewhere_whichever_document_they_came_from(name: str) -> None:
    for one in document(name)["components"]["schemas"]:
        rules = schema(name, one)
        for node in _walk(dict(rules.fields)):
            if isinstance(node.get("$ref"), str):
                resolve(name, node["$ref"])


def test_a_schema_of_another_document_holds_with_what_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A field taken from elsewhere keeps its rules, and its default where none stands beside it."""
    small = {
        "components": {
            "schemas": {
                "Own": {
                    "allOf": [{"$ref": "nitro.json#/components/schemas/EmbeddingsRequest"}],
                    "properties": {
                        "messages": {"items": {"$ref": "nitro.json#/components/schemas/Message"}},
                        "temperature": {"$ref": f"{_FIELDS}/temperature", "default": 0.8},
                        "top_p": {"$ref": f"{_FIELDS}/top_p"},
                        "n_keep": {"$ref": f"{_FIELDS}/n_keep"},
                    },
                }
            }
        }
    }
    real = validation.document_text
    texts = {"small": json.dumps(small)}
    monkeypatch.setattr(validation, "document_text", lambda name: texts.get(name) or real(name))
    rules = Schema("small", "Own")
    assert {"input", "messages", "temperature"} <= rules.properties
    assert (rules.defaults["temperature"], rules.defaults["top_p"]) == (0.8, 0.95)
    assert rules.whole("n_keep", 5.0) == 5
    rules.check({"input": "a", "messages": HELLO, "temperature": 1, "top_p": None})
    for body, field in (
        ({}, "input"),
        ({"input": "a", "temperature": 3}, "temperature"),
        ({"input": "a", "messages": [{"role": 5}]}, "messages/0/role"),
        ({"input": "a", "top_p": "x"}, "top_p"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            rules.check(body)
        assert caught.value.field == field
    validation.document.cache_clear()


_FIELDS = "nitro.json#/components/schemas/ChatCompletionRequest/properties"


def test_every_example_of_the_document_is_valid() -> None:
    count = 0
    for node in _walk(DOCUMENT):
        if "example" in node and "schema" in node:
            usual = node["schema"].get("anyOf", [node["schema"]])[0]
            name = usual["$ref"].rpartition("/")[2]
            schema("nitro", name).check(node["example"])
            count += 1
    assert count > 10


def test_every_field_of_a_request_says_its_type_and_what_it_is_for() -> None:
    for name in ("LoadModelRequest", "ChatCompletionRequest", "EmbeddingsRequest", "Message"):
        for field, body in DOCUMENT["components"]["schemas"][name]["properties"].items():
            assert body.get("description"), field
            assert {"type", "anyOf"} & set(body), field


def test_defaults_are_valid_values() -> None:
    for rules, least in ((CHAT, {"messages": HELLO}), (LOAD, {"llama_model_path": "a"})):
        rules.check({**least, **rules.defaults})


def test_the_server_has_threads_for_the_most_slots_a_load_may_ask_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.environ", {})
    from nitrolib.adapters import gunicorn

    for name, body in (("nitro", "LoadModelRequest"), ("jan", "StartModelRequest")):
        fields = document(name)["components"]["schemas"][body]["properties"]
        assert fields["n_parallel"]["maximum"] == gunicorn.MAX_PARALLEL
    assert gunicorn.threads > 64 + gunicorn.MAX_PARALLEL


@pytest.mark.parametrize(
    ("rules", "body", "pointer", "rule", "allowed"),
    [
        (CHAT, {}, "/messages", "required", "a value"),
        (CHAT, [], "", "type", "an object"),
        (CHAT, {"messages": []}, "/messages", "minItems", "an array of 1 or more items"),
        (CHAT, {"messages": HELLO, "temperature": 3}, "/temperature", "maximum", "from 0 to 2"),
        (CHAT, {"messages": HELLO, "max_tokens": 0}, "/max_tokens", "not", "anything but 0"),
        (CHAT, {"messages": HELLO, "repeat_penalty": 0}, "/repeat_penalty",
         "exclusiveMinimum", "above 0"),
        (CHAT, {"messages": [{"role": [1]}]}, "/messages/0/role", "type", "a text"),
        (CHAT, {"messages": HELLO, "stop": ["a", 5]}, "/stop/1", "type", "a text"),
        (CHAT, {"messages": HELLO, "stream": 1}, "/stream", "type", "true or false"),
        (CHAT, {"messages": HELLO, "seed": True}, "/seed", "type", "a whole number"),
        (LOAD, {}, "/llama_model_path", "anyOf", "a value"),
        (LOAD, {"model_path": "a", "n_parallel": 0}, "/n_parallel", "minimum", "from 1 to 64"),
        (LOAD, {"model_path": "a", "cache_type": "x"}, "/cache_type", "enum",
         'one of "f16", "q8_0", "q4_0"'),
        (EMBED, {"input": ["a", 1]}, "/input", "anyOf",
         "a text or an array of texts or an array of token ids or an array of arrays of token ids"),
    ],
)  # fmt: skip
def test_an_error_has_pointer_rule_and_what_is_allowed(
    rules: Any, body: Any, pointer: str, rule: str, allowed: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rules.check(body)
    error = caught.value
    assert (error.pointer, error.rule, error.allowed) == (pointer, rule, allowed)
    assert error.field == (pointer[1:] or None)
    assert (error.field or "the body") in error.message


def test_large_and_deep_values_are_shown_short() -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    for value in ("x" * 10**6, list(range(10**5)), deep, 10**300):
        assert len(shorten(value)) < 200
    with pytest.raises(InvalidRequest) as caught:
        CHAT.check({"messages": HELLO, "temperature": "x" * 10**6})
    assert len(caught.value.message) < 200
    assert len(caught.value.value) < 200
    while deep:  # taken apart by hand: freeing it at once would recurse
        deep = deep.pop()


def test_ten_thousand_wrong_items_cost_one_error() -> None:
    for given in ([1] * 200_000 + ["x"], [[1] * 100] * 2000 + [["x"]], [1.5] * 200_000):
        with pytest.raises(InvalidRequest):
            EMBED.check({"input": given})


def test_unknown_names_keep_their_order() -> None:
    assert CHAT.unknown({"zeta": 1, "model": 2, "alpha": 3}) == ("zeta", "alpha")


def test_whole_numbers_become_ints_and_nothing_else_does() -> None:
    assert repr(CHAT.whole("max_tokens", 5.0)) == "5"
    assert repr(CHAT.whole("temperature", 1.0)) == "1.0"
    assert repr(CHAT.whole("unknown", 1.0)) == "1.0"


def test_importing_it_loads_no_validator() -> None:
    code = "import sys, nitrolib.validation; print('jsonschema' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
