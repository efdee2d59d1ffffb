"""Jan's files on disk are read into a store: old times, broken lines, and nothing twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.stores import Clock, opened

from nitrolib.errors import NotFound
from nitrolib.store import Store, import_jan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened("sqlite", tmp_path, Clock()) as store:
        yield store


def write(folder: Path, path: str, content: Any) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    target.write_text(text, encoding="utf-8")


def message(number: int, created: int, **fields: Any) -> str:
    part = {"type": "text", "text": {"value": f"text {number}", "annotations": []}}
    return json.dumps(
        {
            "id": f"01HX{number}",
            "object": "thread.message",
            "thread_id": "jan_1700000000",
            "role": "user" if number % 2 else "assistant",
            "content": [part],
            "created_at": created,
            "status": "ready",
            **fields,
        }
    )


def test_what_jan_left_is_read(store: Store, tmp_path: Path) -> None:
    jan = tmp_path / "jan"
    assistants = [{"assistant_id": "jan", "model": {"id": "zephyr-7b", "parameters": {"top_k": 5}}}]
    write(
        jan,
        "threads/jan_1700000000/thread.json",
        {
            "id": "something else",
            "title": "Cats",
            "created": 1700000000123,
            "assistants": assistants,
            "metadata": {"lastMessage": "x"},
        },
    )
    # Newest first, as some versions drew them; milliseconds and seconds; the last line is cut.
    lines = [
        message(3, 1700000003000, file_ids=["file-1"]),
        message(2, 1700000002, status="stopped"),
        message(1, 1700000001000),
        message(4, 1700000004)[:-20],
    ]
    write(jan, "threads/jan_1700000000/messages.jsonl", "\n".join(lines))
    write(jan, "assistants/poet/assistant.json", {"name": "Poet", "instructions": "Rhyme."})
    found = import_jan(store, jan)
    assert (found.threads, found.messages, found.assistants) == (1, 3, 1)
    assert found.skipped == ("threads/jan_1700000000/messages.jsonl: line 4 is not whole",)
    thread = store.threads.get("jan_1700000000")
    assert (thread.title, thread.created_at) == ("Cats", 1700000000)
    assert (thread.assistants, thread.metadata) == (tuple(assistants), {"lastMessage": "x"})
    messages = store.messages.list(thread.id, order="asc").data
    assert [one.text for one in messages] == ["text 1", "text 2", "text 3"]
    assert [one.created_at for one in messages] == [1700000001, 1700000002, 1700000003]
    assert [one.status for one in messages] == ["completed", "incomplete", "completed"]
    assert messages[2].file_ids == ("file-1",)
    poet = store.assistants.get("poet")
    assert (poet.name, poet.instructions, poet.models) == ("Poet", "Rhyme.", ({"model_id": "*"},))


def test_nothing_is_read_twice(store: Store, tmp_path: Path) -> None:
    write(tmp_path, "threads/t1/thread.json", {"title": "Cats"})
    write(tmp_path, "threads/t1/messages.jsonl", message(1, 5))
    write(tmp_path, "assistants/jan/assistant.json", {"name": "Another Jan"})
    first = import_jan(store, tmp_path)
    assert (first.threads, first.messages, first.assistants) == (1, 1, 0)
    assert first.skipped == ("assistants/jan/assistant.json: the assistant 'jan' is there already",)
    store.threads.update("t1", title="Dogs")
    again = import_jan(store, tmp_path)
    assert (again.threads, again.messages) == (0, 0)
    assert store.threads.get("t1").title == "Dogs"
    assert len(store.messages.list("t1").data) == 1
    assert store.assistants.get("jan").name == "Jan"


def test_no_folder_is_nothing(store: Store, tmp_path: Path) -> None:
    found = import_jan(store, tmp_path / "absent")
    assert (found.threads, found.messages, found.assistants, found.skipped) == (0, 0, 0, ())


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "5", "\x00", "[" * 100_000, {"title": "a\0b"}, {"metadata": {"a": 1}}],
)
def test_a_broken_thread_is_left_out_and_told(store: Store, tmp_path: Path, content: Any) -> None:
    write(tmp_path, "threads/bad/thread.json", content)
    write(tmp_path, "threads/bad/messages.jsonl", message(1, 5, metadata={"a": "\ud800"}))
    write(tmp_path, "threads/good/thread.json", {"title": None, "created": "soon"})
    found = import_jan(store, tmp_path)
    if content == {"metadata": {"a": 1}}:
        assert found.threads == 2
        return
    assert (found.threads, len(found.skipped)) == (1, 1)
    assert found.skipped[0].startswith("threads/bad/thread.json: ")
    with pytest.raises(NotFound):
        store.threads.get("bad")
    assert store.threads.get("good").assistants == ({"assistant_id": "jan"},)


def test_a_thread_with_a_message_that_cannot_be_kept_is_left_out_whole(
    store: Store, tmp_path: Path
) -> None:
    write(tmp_path, "threads/one/thread.json", {})
    write(tmp_path, "threads/one/messages.jsonl", message(1, 5))
    write(tmp_path, "threads/two/thread.json", {})
    lines = [message(7, 5), message(1, 6)]  # the second has the id of a message of another thread
    write(tmp_path, "threads/two/messages.jsonl", "\n".join(lines))
    found = import_jan(store, tmp_path)
    assert (found.threads, found.messages) == (1, 1)
    assert found.skipped == ("threads/two/thread.json: the message '01HX1' is there already",)
    assert [one.id for one in store.threads.list().data] == ["one"]


def test_messages_of_others_are_left_out_and_told(store: Store, tmp_path: Path) -> None:
    write(tmp_path, "threads/one/thread.json", {})
    lines = [message(1, 5, role="system"), "[]", "", message(2, 6, content="plain", id="../x")]
    write(tmp_path, "threads/one/messages.jsonl", "\n".join(lines))
    found = import_jan(store, tmp_path)
    assert (found.messages, len(found.skipped)) == (1, 2)
    kept = store.messages.list("one").data[0]
    assert kept.text == "plain"
    assert kept.id.startswith("msg_")
