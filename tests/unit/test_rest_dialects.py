"""What dialects share: paths, errors in their own words, bodies and queries, runs and streams."""

from __future__ import annotations

import json
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from flask import Blueprint, jsonify
from support.rest_client import CHAT, HELLO, Rest

from nitrolib.adapters.rest import bodies, dialects, sse
from nitrolib.adapters.rest.dialects import DIALECTS, Dialect, add_route, load
from nitrolib.adapters.rest.problem import Refused, openai_body, problem_of
from nitrolib.adapters.rest.running import Run
from nitrolib.adapters.rest.service import service
from nitrolib.config import DIALECT_PORTS
from nitrolib.engine.request import GenerationRequest
from nitrolib.errors import (
    BackendError,
    Conflict,
    DeadlineExceeded,
    DownloadError,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    NitroError,
    NotFound,
    Overloaded,
    StorageError,
)
from nitrolib.validation import Schema

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(text: str) -> Any:
    def view(**_variables: Any) -> Any:
        return jsonify(text)

    view.__name__ = text
    return view


def fail() -> Any:
    raise NotFound("thing", "x")


def stream() -> Any:
    """A stream that fails after its first event."""

    def events() -> Iterator[dict[str, Any]]:
        yield {"text": "one"}
        raise BackendError("no more")

    return sse.respond(events(), lambda: None, done=b"data: end\n\n")


def batch() -> Any:
    body = bodies.read("nitro", "EmbeddingsRequest").fields
    requests = [GenerationRequest(prompt=(ord(text),)) for text in body["input"]]
    results = Run(service().use(), requests, 2).results()
    return jsonify([result.seed for result in results])


def made(name: str, **options: Any) -> Dialect:
    return Dialect(name=name, blueprint=Blueprint(name, __name__), document="nitro", **options)


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Rest:
    """A server of two dialects that both have /same, and differ in how they tell of errors."""
    first = made("nitro")
    second = made(
        "jan",
        error_body=lambda problem: {"detail": problem.message, "code": problem.code},
        error_event=lambda body: {"gone": body["detail"]},
        statuses={NotFound: HTTPStatus.GONE},
        public=frozenset({"/second/open"}),
        key_header="X-Api-Key",
    )
    add_route(first.blueprint, say("first"), ("GET",), "/same", "/first/<name>")
    add_route(second.blueprint, say("second"), ("GET", "POST"), "/same", "/first/x/y", "/second")
    add_route(second.blueprint, say("open"), ("GET",), "/second/open")
    add_route(second.blueprint, fail, ("GET",), "/second/fail")
    add_route(second.blueprint, stream, ("GET",), "/second/stream")
    add_route(second.blueprint, batch, ("POST",), "/batch")
    monkeypatch.setattr(dialects, "load", lambda _names: (first, second))
    monkeypatch.setattr(Rest, "request", plain_request)
    return Rest()


def plain_request(self: Rest, method: str, path: str, **options: Any) -> Any:
    """As Rest.request, and errors have whatever form they have."""
    from support.rest_client import Answer

    got = self.http.open(path, method=method, **options)
    answer = Answer(got.status_code, got.headers, got.data)
    got.close()
    return answer


# ---- paths ---------------------------------------------------------------------------------------


def test_the_earlier_dialect_answers_where_two_have_a_path(rest: Rest) -> None:
    assert rest.get("/same").json == "first"
    assert rest.post("/same").json == "second"  # the earlier one has no such method
    assert rest.get("/second").json == "second"
    assert rest.get("/first/x/y").json == "second"


def test_every_dialect_has_its_blueprint_name_document_and_port() -> None:
    for dialect in load(DIALECTS):
        assert dialect.blueprint.name == dialect.name
        assert dialect.port == DIALECT_PORTS[dialect.name]


def test_dialects_come_in_the_order_asked_for() -> None:
    assert [one.name for one in load(("openai", "nitro"))] == ["openai", "nitro"]


# ---- errors --------------------------------------------------------------------------------------


def test_errors_are_told_as_the_dialect_tells_them_whose_route_it_is(rest: Rest) -> None:
    answer = rest.get("/second/fail")
    assert (answer.status, answer.json) == (
        410, {"detail": "there is no thing 'x'", "code": "not_found"},
    )  # fmt: skip
    wrong = rest.request("DELETE", "/second")
    assert (wrong.status, wrong.json["code"]) == (405, "method_not_allowed")
    assert sorted(wrong.headers["Allow"].split(", ")) == ["GET", "HEAD", "POST"]
    foreign = rest.get("/second", headers={"Origin": "https://example.org"})
    assert (foreign.status, foreign.json["code"]) == (403, "origin_not_allowed")
    unknown = rest.get("/nowhere")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "not_found")


def test_an_error_in_a_stream_is_an_event_of_the_dialects_form(rest: Rest) -> None:
    answer = rest.get("/second/stream")
    assert answer.status == 200
    assert answer.data.decode() == (
        'data: {"text":"one"}\n\ndata: {"gone":"no more"}\n\ndata: end\n\n'
    )


def test_a_named_event_has_its_type_as_its_name() -> None:
    event = {"type": "response.created", "n": 1}
    told = b'event: response.created\ndata: {"type":"response.created","n":1}\n\n'
    assert sse.encode_named(event) == told
    assert sse.encode_named({"error": {}}).startswith(b"event: error\n")


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"),
    [
        (NotFound("thread", "t"), 404, "not_found", "not_found_error"),
        (ModelNotFound("m"), 404, "model_not_found", "not_found_error"),
        (Conflict("taken"), 409, "conflict", "conflict_error"),
        (Forbidden("protected"), 403, "forbidden", "permission_error"),
        (DownloadError("gone", reason="network"), 502, "download_error", "download_error"),
        (DownloadError("full", reason="space"), 507, "download_error", "storage_error"),
        (DownloadError("not allowed", reason="source"), 400, "download_error",
         "invalid_request_error"),
        (StorageError("broken"), 500, "storage_error", "server_error"),
        (StorageError("full", reason="space"), 507, "storage_error", "storage_error"),
        (DeadlineExceeded("late"), 504, "deadline_exceeded", "timeout_error"),
        (NitroError("else"), 500, "nitro_error", "server_error"),
        (ValueError("secret"), 500, "internal_error", "server_error"),
        (Refused(HTTPStatus.NOT_IMPLEMENTED, "no", "not_supported"), 501, "not_supported",
         "not_supported_error"),
    ],
)  # fmt: skip
def test_every_error_has_a_status_a_code_and_a_type(
    error: Exception, status: int, code: str, kind: str
) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code, problem.type) == (status, code, kind)
    told = json.dumps(openai_body(problem))
    assert "secret" not in told


def test_every_error_of_the_library_has_a_status() -> None:
    import nitrolib.errors

    for name in nitrolib.errors.__all__:
        kind = getattr(nitrolib.errors, name)
        error = kind.__new__(kind)
        NitroError.__init__(error, "words")
        error.retry_after_s = 1
        assert problem_of(error).status >= 400


def test_a_full_queue_says_when_to_come_again() -> None:
    problem = problem_of(Overloaded(queue_size=3, retry_after_s=2.1))
    assert (problem.status, problem.headers) == (503, {"Retry-After": "3"})


def test_a_problem_names_field_and_place() -> None:
    error = InvalidRequest("bad", field="json_schema", pointer="/properties/a")
    assert openai_body(problem_of(error))["error"] == {
        "message": "bad",
        "type": "invalid_request_error",
        "param": "json_schema",
        "code": "invalid_request",
        "pointer": "/properties/a",
    }


# ---- keys ----------------------------------------------------------------------------------------


def test_a_dialect_may_take_keys_in_a_header_of_its_own_and_have_public_paths(
    monkeypatch: pytest.MonkeyPatch, rest: Rest
) -> None:
    locked = Rest(api_key="k")
    assert locked.get("/second/open").status == 200
    assert locked.get("/second").status == 401
    assert locked.get("/second", headers={"X-Api-Key": "k"}).status == 200
    assert locked.get("/second", headers={"X-Api-Key": "wrong"}).status == 401
    assert locked.get("/first/x", headers={"X-Api-Key": "k"}).status == 401
    both = {"Authorization": "Bearer wrong", "X-Api-Key": "k"}
    assert locked.get("/second", headers=both).status == 401


# ---- bodies and queries --------------------------------------------------------------------------


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reads a query against a small schema: what it means, and what was ignored."""
    from flask import Flask, g

    fields = {
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "order": {"enum": ["asc", "desc"], "default": "desc"},
        "loaded": {"type": "boolean"},
        "after": {"type": "string", "maxLength": 10},
    }
    document = {"components": {"schemas": {"List": {"type": "object", "properties": fields}}}}
    import nitrolib.validation as validation

    text = json.dumps(document)
    monkeypatch.setattr(validation, "document_text", lambda _name: text)
    validation.document.cache_clear()
    rules = Schema("listing", "List")
    validation.document.cache_clear()
    monkeypatch.setattr(bodies, "schema", lambda *_: rules)

    def read(query: str) -> Any:
        with Flask("x").test_request_context(f"/?{query}"):
            found = bodies.read_query("listing", "List")
            return found.fields, g.get("ignored", [])

    return read


@pytest.mark.parametrize(
    ("query", "fields", "ignored"),
    [
        ("", {}, []),
        ("limit=5&order=asc", {"limit": 5, "order": "asc"}, []),
        ("loaded=true&after=x", {"loaded": True, "after": "x"}, []),
        ("loaded=0", {"loaded": False}, []),
        ("limit=&after=", {}, []),
        ("after=5", {"after": "5"}, []),
        ("other=1&limit=2", {"limit": 2}, ["other"]),
    ],
)
def test_a_query_is_read_by_its_schema(
    listing: Any, query: str, fields: Any, ignored: list[str]
) -> None:
    assert listing(query) == (fields, ignored)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.5", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=1&limit=2", "limit"),
        ("order=up", "order"),
        ("loaded=maybe", "loaded"),
        ("after=12345678901", "after"),
    ],
)
def test_a_wrong_query_names_its_field(listing: Any, query: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        listing(query)
    assert caught.value.field == field


# ---- runs ----------------------------------------------------------------------------------------


def test_several_requests_run_together_and_their_answers_come_in_order(rest: Rest) -> None:
    answer = rest.post("/batch", {"input": ["a", "b"]})
    assert answer.status == 200
    assert [request.prompt for request in rest.engine.requests] == [(97,), (98,)]
    assert len(answer.json) == 4
    assert all(generation.cancelled for generation in rest.engine.generations)  # given back


def test_where_one_cannot_be_queued_none_runs(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = rest.engine.submit_choices

    def refuse_second(request: GenerationRequest, n: int) -> Any:
        if request.prompt == (98,):
            raise Overloaded(queue_size=1)
        return submit(request, n)

    monkeypatch.setattr(rest.engine, "submit_choices", refuse_second)
    assert rest.post("/batch", {"input": ["a", "b"]}).status == 503
    assert [generation.cancelled for generation in rest.engine.generations] == [True, True]
    here = rest.app.extensions["nitrolib"]
    assert [seat.leases for seat in here.pool.seats()] == [0]


def test_more_answers_than_could_ever_wait_are_refused(rest: Rest) -> None:
    answer = rest.post("/batch", {"input": ["a"] * 40})
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert rest.engine.requests == []


def test_a_stream_holds_its_model_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Rest()
    got = rest.http.post(CHAT, json={"messages": HELLO, "stream": True}, buffered=False)
    (seat,) = rest.app.extensions["nitrolib"].pool.seats()
    assert seat.leases == 1
    got.get_data()
    got.close()
    assert seat.leases == 0


def test_what_runs_after_a_stream_runs_however_it_ends() -> None:
    from flask import Flask

    ended: list[str] = []
    lease: Any = SimpleNamespace(engine=Rest().engine, close=lambda: ended.append("lease"), id="x")
    app = Flask("x")
    rest = Rest()
    app.extensions |= rest.app.extensions
    with app.test_request_context("/"):
        run = Run(lease, GenerationRequest(prompt=(1,)))
        answer = run.stream(iter([{"a": 1}]), after=lambda: ended.append("after"))
        assert ended == []
        answer.close()
    assert ended == ["lease", "after"]
