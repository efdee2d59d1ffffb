"""Threads, messages with files, and assistants of the Jan dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from support.jan_rest import HELLO, OPENAI, Jan

from nitrolib.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def jan(tmp_path: Path) -> Jan:
    return Jan(tmp_path)


class TestThreads:
    def test_a_thread_needs_no_body_and_has_the_default_assistant(self, jan: Jan) -> None:
        made = jan.call("POST", "/threads", None, "ThreadObject")
        assert made["id"].startswith("thread_")
        assert made["assistants"] == ["jan"]
        assert made["assistants_info"] == [{"assistant_id": "jan", "assistant_name": "Jan"}]
        assert (made["title"], made["summary"], made["messages"]) == ("", "", [])
        assert made["created"] == made["created_at"]
        assert jan.call("GET", f"/threads/{made['id']}", None, "ThreadObject") == made

    def test_the_early_body_has_messages(self, jan: Jan) -> None:
        messages = [HELLO, {"role": "assistant", "content": "Hi", "file_ids": ["file-1"]}]
        made = jan.call("POST", "/threads", {"messages": messages}, "ThreadObject")
        listed = jan.call("GET", f"/threads/{made['id']}/messages", None, "ListMessagesResponse")
        assert [one["id"] for one in listed["data"]] == made["messages"]
        assert [one["role"] for one in listed["data"]] == ["user", "assistant"]
        assert listed["data"][1]["file_ids"] == ["file-1"]

    def test_the_longest_body_keeps_the_order_of_its_messages(self, jan: Jan) -> None:
        texts = [str(number) for number in range(4096)]
        messages = [{"role": "user", "content": text} for text in texts]
        made = jan.call("POST", "/threads", {"messages": messages}, "ThreadObject")
        store = jan.app.extensions["nitrolib"].store
        kept = store.messages.list(made["id"], limit=None, order="asc").data
        assert [one.text for one in kept] == texts
        assert [one.id for one in kept] == made["messages"]

    def test_the_late_body_says_what_its_assistants_are(self, jan: Jan) -> None:
        given = {
            "assistant_id": "jan",
            "assistant_name": "My Jan",
            "instructions": "Be brief.",
            "model": {"id": "tiny", "settings": {"ctx_len": 512}, "parameters": {"top_k": 5}},
        }
        body = {"object": "thread", "title": "Cats", "assistants": [given], "metadata": {"a": [1]}}
        made = jan.call("POST", "/threads", body, "ThreadObject")
        assert made["assistants_info"] == [given]
        assert (made["title"], made["summary"], made["metadata"]) == ("Cats", "Cats", {"a": [1]})

    def test_assistants_may_be_ids(self, jan: Jan) -> None:
        poet = jan.call("POST", "/assistants", {"name": "Poet"}, "AssistantObject")["id"]
        made = jan.call("POST", "/threads", {"assistants": [poet, "jan"]}, "ThreadObject")
        assert made["assistants"] == [poet, "jan"]
        assert made["assistants_info"][0] == {"assistant_id": poet, "assistant_name": "Poet"}

    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    def test_a_change_touches_what_it_names(self, jan: Jan, method: str) -> None:
        made = jan.call("POST", "/threads", {"title": "Before", "metadata": {"a": 1}})
        path = f"/threads/{made['id']}"
        changed = jan.call(method, path, {"title": "After", "messages": [HELLO]}, "ThreadObject")
        assert (changed["title"], changed["metadata"]) == ("After", {"a": 1})
        assert len(changed["messages"]) == 1
        changed = jan.call(method, path, {"summary": "Later", "model_id": "tiny"}, "ThreadObject")
        assert (changed["title"], changed["model_id"], changed["created"]) == (
            "Later",
            "tiny",
            made["created"],
        )
        assert jan.call("GET", path) == changed

    def test_id_and_object_cannot_be_changed(self, jan: Jan) -> None:
        thread = jan.thread()
        answer = jan.send("PATCH", f"/threads/{thread}", {"id": "other", "object": "x"})
        assert (answer.status, answer.headers["x-nitro-ignored"]) == (200, "id, object")
        assert answer.json["id"] == thread

    def test_the_list_is_an_array_oldest_first(self, jan: Jan) -> None:
        ids = [jan.thread() for _ in range(3)]
        listed = jan.call("GET", "/threads", None, "ListThreadsResponse")
        assert [one["id"] for one in listed] == ids
        assert jan.call("GET", "/threads?order=desc&limit=1")[0]["id"] == ids[2]

    def test_an_openai_client_gets_a_list_object_newest_first(self, jan: Jan) -> None:
        ids = [jan.thread() for _ in range(22)]
        listed = jan.call("GET", "/threads", None, "ListThreadsResponse", headers=OPENAI)
        assert [one["id"] for one in listed["data"]] == ids[:1:-1]
        assert (listed["first_id"], listed["has_more"]) == (ids[21], True)
        page = f"/threads?after={listed['last_id']}"
        rest = jan.call("GET", page, None, "ListThreadsResponse", headers=OPENAI)
        assert [one["id"] for one in rest["data"]] == ids[1::-1]
        assert not rest["has_more"]

    def test_a_deleted_thread_is_gone_with_its_messages(self, jan: Jan) -> None:
        thread = jan.thread(messages=[HELLO])
        gone = jan.call("DELETE", f"/threads/{thread}", None, "DeleteThreadResponse")
        assert gone == {"id": thread, "object": "thread.deleted", "deleted": True}
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/messages"),
            ("POST", ""),
            ("GET", "/runs"),
        ):
            assert jan.fails(method, f"/threads/{thread}{path}") == (404, "not_found", None)

    @pytest.mark.parametrize(
        "path", ["", "/messages", "/messages/x", "/messages/x/files", "/runs/x"]
    )
    @pytest.mark.parametrize(
        "thread", ["nothing", "..", "%2e%2e", "%00", "a%20b", "%ff", "x" * 3000]
    )
    def test_whatever_is_asked_for_is_not_found(self, jan: Jan, thread: str, path: str) -> None:
        assert jan.fails("GET", f"/threads/{thread}{path}")[:2] == (404, "not_found")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"assistants": []}, "assistants"),
            ({"assistants": [5]}, "assistants/0"),
            ({"title": 5}, "title"),
            ({"metadata": []}, "metadata"),
            ({"messages": [{"role": "system", "content": "x"}]}, "messages/0/role"),
            ({"messages": [{"role": "user"}]}, "messages/0/content"),
            ({"messages": [{"role": "user", "content": 5}]}, "messages/0/content"),
            (
                {"messages": [HELLO, {**HELLO, "content": [{"type": "x"}]}]},
                "messages/1/content/0/type",
            ),
            ({"parameters": {"temperature": -1}}, "parameters/temperature"),
            ({"title": "a\0b"}, "title"),
        ],
    )
    def test_a_bad_field_is_refused_and_nothing_is_made(
        self, jan: Jan, body: Any, field: str
    ) -> None:
        status, code, param = jan.fails("POST", "/threads", body)
        assert (status, param) == (400, field)
        assert code in ("invalid_value", "missing_required_parameter", "unsupported")
        assert jan.call("GET", "/threads") == []

    @pytest.mark.parametrize("gone", ["asst_gone", {"assistant_id": "asst_gone"}])
    def test_an_unknown_assistant_is_not_found_and_nothing_is_made(
        self, jan: Jan, gone: Any
    ) -> None:
        """The field tells it from a thread that is not there."""
        body = {"assistants": ["jan", gone], "messages": [HELLO]}
        assert jan.fails("POST", "/threads", body) == (404, "not_found", "assistants/1")
        assert jan.call("GET", "/threads") == []
        path = f"/threads/{jan.thread()}"
        assert jan.fails("PATCH", path, body) == (404, "not_found", "assistants/1")

    def test_what_is_not_known_is_named(self, jan: Jan) -> None:
        body = {
            "colour": "red",
            "assistants": [{"size": 5, "model": {"parameters": {"ngl": 1}}}],
            "parameters": {"warmth": 1},
            "messages": [{**HELLO, "mood": "good"}],
        }
        answer = jan.send("POST", "/threads", body)
        assert answer.status == 200
        assert unquote(answer.headers["x-nitro-ignored"]) == (
            "colour, assistants/*/size, assistants/*/model/parameters/ngl, parameters/warmth, "
            "messages/*/mood"
        )

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=101", "limit=x", "order=up", "after=thread_x"]
    )
    def test_a_bad_page_is_refused(self, jan: Jan, query: str) -> None:
        assert jan.fails("GET", f"/threads?{query}") == (400, "invalid_value", query.split("=")[0])

    def test_what_is_kept_is_there_after_a_restart(self, jan: Jan, tmp_path: Path) -> None:
        thread = jan.thread(title="Kept", messages=[HELLO])
        before = jan.call("GET", f"/threads/{thread}")
        jan.app.extensions["nitrolib"].close()
        assert Jan(tmp_path).call("GET", f"/threads/{thread}") == before

    def test_a_full_disk_is_told(self, jan: Jan, monkeypatch: pytest.MonkeyPatch) -> None:
        store = jan.app.extensions["nitrolib"].store

        def full(**_fields: Any) -> None:
            raise StorageError("the disk is full", reason="space")

        monkeypatch.setattr(store.threads, "create", full)
        assert jan.fails("POST", "/threads") == (507, "storage_error", None)


class TestMessages:
    def test_a_text_becomes_a_part(self, jan: Jan) -> None:
        thread = jan.thread()
        made = jan.call("POST", f"/threads/{thread}/messages", HELLO, "MessageObject")
        assert made["id"].startswith("msg_")
        assert made["content"] == [{"type": "text", "text": {"value": "Hello", "annotations": []}}]
        assert (made["thread_id"], made["role"], made["file_ids"]) == (thread, "user", [])
        assert (made["assistant_id"], made["run_id"], made["metadata"]) == (None, None, {})
        assert jan.call(
            "GET", f"/threads/{thread}/messages/{made['id']}", None, "MessageObject"
        ) == (made)

    def test_parts_may_have_their_text_at_either_depth(self, jan: Jan) -> None:
        content = [{"type": "text", "text": "one "}, {"type": "text", "text": {"value": "two"}}]
        made = jan.call(
            "POST", f"/threads/{jan.thread()}/messages", {"role": "user", "content": content}
        )
        assert [part["text"]["value"] for part in made["content"]] == ["one ", "two"]

    @pytest.mark.parametrize(
        ("content", "field"),
        [
            ([{"type": "image_url", "image_url": {}}], "content/0/type"),
            ([{"type": "text"}], "content/0/text"),
            ([{"type": "text", "text": {"annotations": []}}], "content/0/text/value"),
            ([{"text": "x"}], "content/0/type"),
            (["x"], "content/0"),
        ],
    )
    def test_content_that_is_no_text_is_refused(self, jan: Jan, content: Any, field: str) -> None:
        thread = jan.thread()
        path = f"/threads/{thread}/messages"
        status, _, param = jan.fails("POST", path, {"role": "user", "content": content})
        assert (status, param) == (400, field)
        assert jan.call("GET", path)["data"] == []

    @pytest.mark.parametrize("missing", ["role", "content"])
    def test_role_and_content_are_required(self, jan: Jan, missing: str) -> None:
        body = {name: value for name, value in HELLO.items() if name != missing}
        refused = jan.fails("POST", f"/threads/{jan.thread()}/messages", body)
        assert refused == (400, "missing_required_parameter", missing)

    @pytest.mark.parametrize("role", ["system", "tool", "", None, 5])
    def test_messages_are_the_users_or_the_assistants(self, jan: Jan, role: Any) -> None:
        body = {"role": role, "content": "x"}
        assert jan.fails("POST", f"/threads/{jan.thread()}/messages", body)[::2] == (400, "role")

    def test_an_unknown_thread_stays_unknown(self, jan: Jan) -> None:
        path = "/threads/thread_gone/messages"
        assert jan.fails("POST", path, HELLO) == (404, "not_found", None)
        assert jan.fails("GET", path) == (404, "not_found", None)
        assert jan.call("GET", "/threads") == []

    def test_an_empty_list_has_empty_ends(self, jan: Jan) -> None:
        listed = jan.call("GET", f"/threads/{jan.thread()}/messages", None, "ListMessagesResponse")
        assert listed == {
            "object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False,
        }  # fmt: skip

    def test_the_oldest_come_first_unless_the_order_is_said(self, jan: Jan) -> None:
        thread = jan.thread(messages=[{"role": "user", "content": str(n)} for n in range(5)])
        path = f"/threads/{thread}/messages"

        def texts(query: str, **options: Any) -> list[str]:
            page = jan.call("GET", f"{path}{query}", None, "ListMessagesResponse", **options)
            return [one["content"][0]["text"]["value"] for one in page["data"]]

        ids = [one["id"] for one in jan.call("GET", path)["data"]]
        assert texts("") == ["0", "1", "2", "3", "4"]
        assert texts("", headers=OPENAI) == ["4", "3", "2", "1", "0"]
        assert texts("?order=desc&limit=2") == ["4", "3"]
        assert texts(f"?after={ids[1]}&limit=2") == ["2", "3"]
        assert texts(f"?before={ids[3]}&limit=2") == ["1", "2"]

    def test_files_are_told_of_by_their_message(self, jan: Jan) -> None:
        thread = jan.thread()
        body = {
            **HELLO,
            "file_ids": ["file-b"],
            "attachments": [{"file_id": "file-a", "tools": []}],
        }
        made = jan.call("POST", f"/threads/{thread}/messages", body, "MessageObject")
        assert made["file_ids"] == ["file-b", "file-a"]
        path = f"/threads/{thread}/messages/{made['id']}/files"
        listed = jan.call("GET", path, None, "ListMessageFilesResponse")
        assert [one["id"] for one in listed["data"]] == ["file-b", "file-a"]
        one = jan.call("GET", f"{path}/file-a", None, "MessageFileObject")
        assert one["message_id"] == made["id"]
        for unknown in ("file-c", "..", "%2e%2e%2fx", "a/b"):
            assert jan.fails("GET", f"{path}/{unknown}")[:2] == (404, "not_found")

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"file_ids": ["../x"]}, "file_ids/0"),
            ({"file_ids": ["a", "a"]}, "file_ids"),
            ({"attachments": [{"file_id": "a", "tools": [{"type": "x"}]}]}, "attachments/0/tools"),
            ({"attachments": [{}]}, "attachments/0/file_id"),
        ],
    )
    def test_files_that_cannot_be_are_refused(self, jan: Jan, fields: Any, field: str) -> None:
        refused = jan.fails("POST", f"/threads/{jan.thread()}/messages", {**HELLO, **fields})
        assert refused[::2] == (400, field)

    def test_a_message_can_be_marked_and_deleted(self, jan: Jan) -> None:
        thread = jan.thread()
        made = jan.call("POST", f"/threads/{thread}/messages", HELLO)
        path = f"/threads/{thread}/messages/{made['id']}"
        changed = jan.call("POST", path, {"metadata": {"stars": 5}}, "MessageObject")
        assert changed == {**made, "metadata": {"stars": 5}}
        gone = jan.call("DELETE", path, None, "DeleteMessageResponse")
        assert gone["object"] == "thread.message.deleted"
        assert jan.fails("GET", path) == (404, "not_found", None)

    def test_no_message_comes_while_the_thread_is_answered(self, jan: Jan) -> None:
        thread = jan.thread()
        jan.app.extensions["nitrolib"].store.runs.create(thread, assistant_id="jan")
        assert jan.fails("POST", f"/threads/{thread}/messages", HELLO)[:2] == (409, "conflict")
        changes = {"title": "x", "messages": [HELLO]}
        assert jan.fails("PATCH", f"/threads/{thread}", changes)[:2] == (409, "conflict")
        assert jan.call("GET", f"/threads/{thread}")["title"] == ""


class TestAssistants:
    def test_jan_is_always_there_and_stays(self, jan: Jan) -> None:
        listed = jan.call("GET", "/assistants", None, "ListAssistantsResponse")
        assert [one["id"] for one in listed] == ["jan"]
        assert jan.fails("DELETE", "/assistants/jan") == (403, "forbidden", None)
        assert jan.call("GET", "/assistants/jan", None, "AssistantObject") == listed[0]
        changed = jan.call("PATCH", "/assistants/jan", {"instructions": "Be brief."})
        assert changed["instructions"] == "Be brief."

    def test_an_assistant_is_kept_as_it_was_given(self, jan: Jan) -> None:
        body = {
            "name": "Poet",
            "description": "It rhymes",
            "instructions": "Answer in rhymes.",
            "avatar": "https://example.org/poet.png",
            "models": [{"model_id": "tiny"}],
            "events": {"in": [1], "out": []},
            "metadata": {"a": 1},
            "parameters": {"top_k": 5},
            "model": "tiny",
            "temperature": 0.1,
            "top_p": 0.5,
            "tools": [],
        }
        made = jan.call("POST", "/assistants", body, "AssistantObject")
        assert made["id"].startswith("asst_")
        assert {name: made[name] for name in body if name != "parameters"} == {
            name: value for name, value in body.items() if name != "parameters"
        }
        assert made["parameters"] == {"top_k": 5, "temperature": 0.1, "top_p": 0.5}
        assert jan.call("GET", f"/assistants/{made['id']}", None, "AssistantObject") == made

    def test_what_is_left_out_has_defaults(self, jan: Jan) -> None:
        made = jan.call("POST", "/assistants", {"name": "Poet"}, "AssistantObject")
        assert (made["models"], made["events"]) == ([{"model_id": "*"}], {"in": [], "out": []})
        assert (made["model"], made["version"], made["description"]) == ("*", 1, None)

    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    def test_a_change_touches_what_it_names(self, jan: Jan, method: str) -> None:
        made = jan.call("POST", "/assistants", {"name": "Poet", "parameters": {"top_k": 5}})
        path = f"/assistants/{made['id']}"
        changed = jan.call(method, path, {"temperature": 0, "model": "tiny"}, "AssistantObject")
        assert changed["parameters"] == {"top_k": 5, "temperature": 0}
        assert (changed["name"], changed["model"]) == ("Poet", "tiny")
        assert jan.call(method, path, {"model": "*"})["model"] == "*"

    def test_a_deleted_assistant_is_gone(self, jan: Jan) -> None:
        made = jan.call("POST", "/assistants", {"name": "Poet"})["id"]
        gone = jan.call("DELETE", f"/assistants/{made}", None, "DeleteAssistantResponse")
        assert gone == {"id": made, "object": "assistant.deleted", "deleted": True}
        for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"name": "x"})):
            assert jan.fails(method, f"/assistants/{made}", body) == (404, "not_found", None)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "name"),
            ({"name": 5}, "name"),
            ({"name": "x", "tools": [{"type": "code_interpreter"}]}, "tools"),
            ({"name": "x", "models": [{}]}, "models/0/model_id"),
            ({"name": "x", "temperature": 9}, "temperature"),
            ({"name": "x", "parameters": {"top_p": "1"}}, "parameters/top_p"),
            ({"name": "x", "response_format": "yaml"}, "response_format"),
        ],
    )
    def test_a_bad_field_is_refused(self, jan: Jan, body: Any, field: str) -> None:
        assert jan.fails("POST", "/assistants", body)[::2] == (400, field)
        assert len(jan.call("GET", "/assistants")) == 1

    def test_an_openai_client_gives_a_model_instead_of_a_name(self, jan: Jan) -> None:
        made = jan.call("POST", "/assistants", {"model": "tiny"}, "AssistantObject")
        assert (made["name"], made["model"]) == ("", "tiny")
        listed = jan.call("GET", "/assistants", None, "ListAssistantsResponse", headers=OPENAI)
        assert [one["id"] for one in listed["data"]] == [made["id"], "jan"]
