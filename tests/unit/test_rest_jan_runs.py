"""Runs of threads over a fake engine: what is asked of it, what is kept, and the events."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.jan_rest import HELLO, MODEL, Jan, named_events

from nitrolib.errors import BackendError, Cancelled, Conflict, Overloaded, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDED = ("completed", "incomplete", "failed", "cancelled", "expired")


@pytest.fixture
def jan(tmp_path: Path) -> Jan:
    return Jan(tmp_path)


def wait(jan: Jan, thread: str, run: str) -> Any:
    """The run, when it has ended."""
    deadline = time.monotonic() + 60
    while True:
        found = jan.call("GET", f"/threads/{thread}/runs/{run}", None, "RunObject")
        if found["status"] in ENDED:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.005)


def run(jan: Jan, thread: str, **fields: Any) -> Any:
    """A run of *thread* in the background, when it has ended."""
    made = jan.call("POST", f"/threads/{thread}/runs", fields, "RunObject")
    assert made["status"] == "queued"
    return wait(jan, thread, made["id"])


def prompt(jan: Jan) -> str:
    """Of the last request."""
    made: Any = jan.engine.requests[-1].prompt
    # The fake engine's tokens are characters.
    return "".join(map(chr, made)) if isinstance(made, tuple) else str(made.text)


def texts(jan: Jan, thread: str) -> list[tuple[str, str]]:
    listed = jan.call("GET", f"/threads/{thread}/messages", None, "ListMessagesResponse")
    return [(one["role"], one["content"][0]["text"]["value"]) for one in listed["data"]]


class TestBackground:
    def test_the_answer_becomes_a_message(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        ended = run(jan, thread)
        assert (ended["status"], ended["model"], ended["assistant_id"]) == (
            "completed",
            MODEL,
            "jan",
        )
        assert ended["usage"] == {
            "prompt_tokens": 90, "completion_tokens": 13, "total_tokens": 103,
        }  # fmt: skip
        assert ended["started_at"] is not None
        assert ended["completed_at"] is not None
        assert texts(jan, thread) == [("user", "Hello"), ("assistant", "Hello there")]
        message = jan.call("GET", f"/threads/{thread}/messages")["data"][1]
        assert (message["run_id"], message["assistant_id"]) == (ended["id"], "jan")
        assert message["status"] == "completed"

    def test_the_next_run_has_the_answer_in_its_prompt(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        run(jan, thread)
        run(jan, thread, additional_messages=[{"role": "user", "content": "And now?"}])
        for said in ("Hello", "Hello there", "And now?"):
            assert said in prompt(jan)
        assert [role for role, _ in texts(jan, thread)] == ["user", "assistant"] * 2

    def test_runs_are_listed_and_marked(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        first, second = run(jan, thread), run(jan, thread, metadata={"a": 1})
        listed = jan.call("GET", f"/threads/{thread}/runs", None, "ListRunsResponse")
        assert listed["data"] == [first, second]
        path = f"/threads/{thread}/runs/{first['id']}"
        assert jan.call("POST", path, {"metadata": {"b": 2}}, "RunObject")["metadata"] == {"b": 2}

    def test_an_answer_that_was_cut_is_incomplete(self, jan: Jan) -> None:
        jan.engine.finish_reason = "length"
        thread = jan.thread(messages=[HELLO])
        ended = run(jan, thread, max_completion_tokens=5)
        assert (ended["status"], ended["incomplete_details"]) == (
            "incomplete",
            {"reason": "max_completion_tokens"},
        )
        assert ended["max_completion_tokens"] == 5
        message = jan.call("GET", f"/threads/{thread}/messages")["data"][1]
        assert (message["status"], message["incomplete_details"]) == (
            "incomplete",
            {"reason": "max_tokens"},
        )

    def test_what_was_dropped_is_told(self, jan: Jan) -> None:
        jan.engine.notes = ("2 old messages were left out",)
        thread = jan.thread(messages=[HELLO], settings={"ctx_len": 5})
        assert run(jan, thread)["warnings"] == [
            "settings of a thread are not used: a model has its own",
            "2 old messages were left out",
        ]

    def test_a_failure_is_told_and_the_thread_is_free_again(self, jan: Jan) -> None:
        jan.engine.fail = BackendError("NaN logits")
        thread = jan.thread(messages=[HELLO])
        ended = run(jan, thread)
        assert (ended["status"], ended["last_error"]) == (
            "failed",
            {"code": "server_error", "message": "NaN logits"},
        )
        # What there was is kept.
        assert texts(jan, thread) == [("user", "Hello"), ("assistant", "Hello there")]
        jan.engine.fail = None
        assert run(jan, thread)["status"] == "completed"

    def test_a_model_that_goes_away_fails_the_run(self, jan: Jan) -> None:
        jan.engine.fail = Cancelled("the model was unloaded", reason="unload")
        assert run(jan, jan.thread(messages=[HELLO]))["status"] == "failed"

    @pytest.mark.parametrize(
        ("refusal", "status"), [(Overloaded(queue_size=64), 503), (RuntimeError("x"), 500)]
    )
    @pytest.mark.parametrize("stream", [True, False])
    def test_what_cannot_begin_leaves_nothing_behind(
        self, jan: Jan, refusal: Exception, status: int, stream: bool
    ) -> None:
        thread = jan.thread(messages=[HELLO])
        jan.engine.refuse = refusal
        body = {"stream": stream, "additional_messages": [{"role": "user", "content": "x"}]}
        assert jan.fails("POST", f"/threads/{thread}/runs", body)[0] == status
        assert jan.call("GET", f"/threads/{thread}/runs")["data"] == []
        assert texts(jan, thread) == [("user", "Hello")]
        assert not jan.app.extensions["nitrolib"].pool.current.leases

    @pytest.mark.parametrize("stream", [True, False])
    def test_what_cannot_be_kept_is_not_generated(
        self, jan: Jan, monkeypatch: pytest.MonkeyPatch, stream: bool
    ) -> None:
        """The disk is full when the transaction ends: the generation has been submitted by then."""
        thread = jan.thread(messages=[HELLO])
        service = jan.app.extensions["nitrolib"]
        whole = service.store.transaction

        @contextlib.contextmanager
        def fails_at_its_end() -> Iterator[None]:
            with whole():
                yield
                raise StorageError("the disk is full", reason="space")

        monkeypatch.setattr(service.store, "transaction", fails_at_its_end)
        body = {"stream": stream}
        assert jan.fails("POST", f"/threads/{thread}/runs", body)[:2] == (507, "storage_error")
        assert [one.cancelled for one in jan.engine.generations] == [True]
        assert not service.pool.current.leases
        assert jan.call("GET", f"/threads/{thread}/runs")["data"] == []

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_run_whose_end_cannot_be_kept_gives_the_model_back(
        self,
        jan: Jan,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        stream: bool,
    ) -> None:
        thread = jan.thread(messages=[HELLO])
        service = jan.app.extensions["nitrolib"]

        def fails(*_args: Any, **_fields: Any) -> None:
            raise StorageError("the disk is full", reason="space")

        monkeypatch.setattr(service.store.runs, "update", fails)
        answer = jan.send("POST", f"/threads/{thread}/runs", {"stream": stream})
        assert answer.status == 200
        deadline = time.monotonic() + 60
        while service.pool.current.leases:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert [one.cancelled for one in jan.engine.generations] == [True]
        assert "the disk is full" in caplog.text
        assert "Traceback" not in caplog.text

    def test_a_thread_is_answered_once_at_a_time(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        jan.app.extensions["nitrolib"].store.runs.create(thread, assistant_id="jan")
        assert jan.fails("POST", f"/threads/{thread}/runs", {})[:2] == (409, "conflict")
        assert jan.engine.requests == []

    def test_a_prompt_that_is_too_long_is_cut_where_that_is_asked_for(self, jan: Jan) -> None:
        jan.engine.room = 300
        long = [{"role": "user", "content": f"{n}" * 40} for n in range(8)]
        thread = jan.thread(messages=long)
        ended = run(jan, thread, truncation_strategy={"type": "auto"})
        assert "7777" in prompt(jan)
        assert "0000" not in prompt(jan)
        assert ended["warnings"]
        run(jan, thread, truncation_strategy={"type": "last_messages", "last_messages": 2})
        assert "6666" not in prompt(jan)
        assert "7777" in prompt(jan)


class TestWhoAnswers:
    def test_request_then_thread_then_assistant_then_model(self, jan: Jan) -> None:
        poet = jan.call(
            "POST",
            "/assistants",
            {
                "name": "Poet",
                "instructions": "Rhyme.",
                "parameters": {"temperature": 0.1, "top_k": 1, "seed": 1, "min_p": 0.2},
            },
        )["id"]
        own = {"assistant_id": poet, "model": {"parameters": {"top_k": 2, "seed": 2, "top_p": 0.2}}}
        thread = jan.thread(
            messages=[HELLO], assistants=[own], parameters={"seed": 3, "top_p": 0.3}
        )
        ended = run(jan, thread, top_p=0.4)
        params = jan.engine.requests[0].params
        assert (params.temperature, params.top_k, params.seed, params.top_p) == (0.1, 2, 3, 0.4)
        assert (params.min_p, params.repeat_penalty, params.max_tokens) == (0.2, 1.1, 2048)
        assert ended["assistant_id"] == poet
        assert "Rhyme." in prompt(jan)

    def test_instructions_are_the_system_message(self, jan: Jan) -> None:
        jan.call("PATCH", "/assistants/jan", {"instructions": "Of the assistant."})
        thread = jan.thread(messages=[HELLO])
        assert run(jan, thread)["instructions"] == "Of the assistant."
        assert "Of the assistant." in prompt(jan)
        own = jan.thread(
            messages=[HELLO], assistants=[{"assistant_id": "jan", "instructions": "Of the thread."}]
        )
        assert run(jan, own)["instructions"] == "Of the thread."
        ended = run(jan, own, instructions="Of the run.", additional_instructions="And more.")
        assert ended["instructions"] == "Of the run.\nAnd more."
        assert run(jan, own, instructions="")["instructions"] == ""

    def test_another_assistant_may_answer(self, jan: Jan) -> None:
        poet = jan.call("POST", "/assistants", {"name": "P", "instructions": "Rhyme."})["id"]
        thread = jan.thread(
            messages=[HELLO], assistants=[{"assistant_id": "jan", "instructions": "Plainly."}]
        )
        ended = run(jan, thread, assistant_id=poet)
        assert (ended["assistant_id"], ended["instructions"]) == (poet, "Rhyme.")

    @pytest.mark.parametrize("where", ["run", "thread", "info", "assistant", "models"])
    def test_each_of_them_may_name_the_model(self, jan: Jan, where: str) -> None:
        assistant = {
            "assistant": {"name": "A", "model": "missing"},
            "models": {"name": "A", "models": [{"model_id": "missing"}]},
        }.get(where, {"name": "A"})
        made = jan.call("POST", "/assistants", assistant)["id"]
        info: dict[str, Any] = {"assistant_id": made}
        if where == "info":
            info["model"] = {"id": "missing"}
        thread = jan.thread(
            messages=[HELLO], assistants=[info], model_id="missing" if where == "thread" else ""
        )
        body = {"model": "missing"} if where == "run" else {}
        refused = jan.fails("POST", f"/threads/{thread}/runs", body)
        assert refused == (404, "model_not_found", "model")

    def test_the_older_name_of_the_limit_counts(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO], parameters={"token_limit": 9, "stream": True})
        run(jan, thread)
        assert jan.engine.requests[0].params.max_tokens == 9
        run(jan, thread, max_completion_tokens=4)
        assert jan.engine.requests[1].params.max_tokens == 4

    def test_an_answer_can_be_held_to_a_schema(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        assert run(jan, thread, response_format="auto")["response_format"] == "auto"
        run(jan, thread, response_format={"type": "json_object"})
        assert jan.engine.requests[1].params.json_schema == '{"type": "object"}'

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"tools": [{"type": "file_search"}]}, "tools"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"max_prompt_tokens": 100}, "max_prompt_tokens"),
            ({"reasoning_effort": "high"}, "reasoning_effort"),
            ({"temperature": 9}, "temperature"),
            ({"truncation_strategy": {}}, "truncation_strategy/type"),
            (
                {"truncation_strategy": {"type": "last_messages"}},
                "truncation_strategy/last_messages",
            ),
            ({"additional_messages": [{"role": "user"}]}, "additional_messages/0/content"),
            ({"stream": "yes"}, "stream"),
        ],
    )
    def test_a_bad_field_is_refused_and_nothing_runs(self, jan: Jan, body: Any, field: str) -> None:
        thread = jan.thread(messages=[HELLO])
        assert jan.fails("POST", f"/threads/{thread}/runs", body)[::2] == (400, field)
        assert jan.call("GET", f"/threads/{thread}/runs")["data"] == []

    def test_unknown_threads_assistants_and_runs_are_not_found(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        for method, path, given in (
            ("POST", "/threads/thread_gone/runs", {}),
            ("GET", "/threads/thread_gone/runs", None),
            ("GET", f"/threads/{thread}/runs/run_gone", None),
            ("POST", f"/threads/{thread}/runs/run_gone", {}),
            ("POST", f"/threads/{thread}/runs/run_gone/cancel", None),
        ):
            assert jan.fails(method, path, given) == (404, "not_found", None)
        gone = {"assistant_id": "asst_gone"}
        refused = jan.fails("POST", f"/threads/{thread}/runs", gone)
        assert refused == (404, "not_found", "assistant_id")

    def test_what_is_wrong_with_a_new_thread_is_named_within_it(self, jan: Jan) -> None:
        image = {"role": "user", "content": [{"type": "image_url"}]}
        for thread, field in (
            ({"messages": [HELLO, image]}, "thread/messages/1/content/0/type"),
            ({"assistants": ["asst_gone"]}, "thread/assistants/0"),
        ):
            assert jan.fails("POST", "/threads/runs", {"thread": thread})[2] == field
        assert jan.call("GET", "/threads") == []

    def test_a_thread_without_messages_has_nothing_to_answer(self, jan: Jan) -> None:
        assert jan.fails("POST", f"/threads/{jan.thread()}/runs", {})[0] == 400


class TestStream:
    def test_the_events_are_openais(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        answer = jan.send("POST", f"/threads/{thread}/runs", {"stream": True})
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = named_events(answer)
        assert [name for name, _ in events] == [
            "thread.run.created",
            "thread.run.queued",
            "thread.run.in_progress",
            "thread.message.created",
            "thread.message.in_progress",
            "thread.message.delta",
            "thread.message.delta",
            "thread.message.completed",
            "thread.run.completed",
        ]
        text = "".join(
            data["delta"]["content"][0]["text"]["value"]
            for name, data in events
            if name == "thread.message.delta"
        )
        assert text == "Hello there"
        ended = events[-1][1]
        assert jan.call("GET", f"/threads/{thread}/runs/{ended['id']}", None, "RunObject") == ended
        kept = events[-2][1]
        path = f"/threads/{thread}/messages/{kept['id']}"
        assert jan.call("GET", path, None, "MessageObject") == kept
        assert {data["id"] for name, data in events if "message" in name} == {kept["id"]}

    def test_an_accept_header_asks_for_a_stream(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        headers = {"Accept": "text/event-stream"}
        answer = jan.send("POST", f"/threads/{thread}/runs", {}, headers=headers)
        assert named_events(answer)[-1][0] == "thread.run.completed"

    def test_a_failure_in_the_middle_ends_the_run(self, jan: Jan) -> None:
        jan.engine.fail = BackendError("NaN logits")
        thread = jan.thread(messages=[HELLO])
        events = named_events(jan.send("POST", f"/threads/{thread}/runs", {"stream": True}))
        assert [name for name, _ in events][-2:] == [
            "thread.message.incomplete",
            "thread.run.failed",
        ]
        assert events[-1][1]["last_error"]["message"] == "NaN logits"
        assert jan.app.extensions["nitrolib"].store.runs.active(thread) is None

    def test_a_client_that_goes_leaves_what_there_was(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        got = jan.http.post(f"/v1/threads/{thread}/runs", json={"stream": True}, buffered=False)
        stream = iter(got.response)
        while b"delta" not in next(stream):
            pass
        jan.engine.generations[0]._outbox.outcome = Cancelled("gone", reason="caller")
        got.close()
        listed = jan.call("GET", f"/threads/{thread}/runs", None, "ListRunsResponse")["data"]
        assert [one["status"] for one in listed] == ["cancelled"]
        assert texts(jan, thread) == [("user", "Hello"), ("assistant", "Hello")]
        message = jan.call("GET", f"/threads/{thread}/messages")["data"][1]
        assert message["status"] == "incomplete"
        assert jan.engine.generations[0].cancelled
        assert not jan.app.extensions["nitrolib"].pool.current.leases

    def test_a_thread_and_its_run_can_be_made_at_once(self, jan: Jan) -> None:
        body = {"assistant_id": "jan", "thread": {"title": "T", "messages": [HELLO]}}
        made = jan.call("POST", "/threads/runs", body, "RunObject")
        assert wait(jan, made["thread_id"], made["id"])["status"] == "completed"
        assert jan.call("GET", f"/threads/{made['thread_id']}")["title"] == "T"

    def test_null_in_a_new_thread_is_as_if_it_were_absent(self, jan: Jan) -> None:
        names = ("title", "summary", "assistants", "metadata", "model_id", "settings")
        thread = {"messages": [HELLO], **dict.fromkeys(names)}
        made = jan.call("POST", "/threads/runs", {"thread": thread}, "RunObject")
        assert wait(jan, made["thread_id"], made["id"])["status"] == "completed"

    def test_a_run_that_cannot_begin_takes_its_new_thread_along(self, jan: Jan) -> None:
        for thread in ({"messages": [HELLO]}, {}):
            body = {"model": "missing", "thread": thread}
            assert jan.fails("POST", "/threads/runs", body)[0] == 404
        assert jan.call("GET", "/threads") == []


class TestCancel:
    def test_a_run_of_a_server_that_was_killed_can_be_cancelled(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        store = jan.app.extensions["nitrolib"].store
        left = store.runs.create(thread, assistant_id="jan", status="in_progress").id
        path = f"/threads/{thread}/runs/{left}"
        ended = jan.call("POST", f"{path}/cancel", None, "RunObject")
        assert ended["status"] == "cancelled"
        assert ended["cancelled_at"] is not None
        assert run(jan, thread)["status"] == "completed"

    def test_what_has_ended_cannot_be_cancelled(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        ended = run(jan, thread)
        path = f"/threads/{thread}/runs/{ended['id']}"
        assert jan.fails("POST", f"{path}/cancel")[:2] == (409, "conflict")
        assert jan.call("GET", path) == ended

    def test_a_thread_deleted_under_a_run_is_gone(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        got = jan.http.post(f"/v1/threads/{thread}/runs", json={"stream": True}, buffered=False)
        stream = iter(got.response)
        next(stream)
        jan.call("DELETE", f"/threads/{thread}")
        rest = b"".join(stream)
        got.close()
        assert b"thread.run.cancelled" in rest
        assert jan.fails("GET", f"/threads/{thread}")[0] == 404

    def test_a_thread_deleted_while_its_run_is_found_to_be_over_is_gone(
        self, jan: Jan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process ends the run, and deletes the thread before the run is read again."""
        thread = jan.thread(messages=[HELLO])
        store = jan.app.extensions["nitrolib"].store
        update, get = store.runs.update, store.runs.get

        def ended(*ids: str, **fields: Any) -> Any:
            if fields["status"] == "completed":
                raise Conflict("the run is cancelled")
            return update(*ids, **fields)

        def gone(*ids: str) -> Any:
            store.threads.delete(thread)
            return get(*ids)

        monkeypatch.setattr(store.runs, "update", ended)
        monkeypatch.setattr(store.runs, "get", gone)
        events = named_events(jan.send("POST", f"/threads/{thread}/runs", {"stream": True}))
        assert events[-1][0] == "thread.run.cancelled"
