"""Messages of a store and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from support.stores import KINDS, Clock, opened

from nitrolib.errors import Conflict, InvalidRequest, NotFound
from nitrolib.store import Message, text_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nitrolib.store import Store


@pytest.fixture(params=KINDS, scope="module")
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    with opened(request.param, tmp_path_factory.mktemp("store"), Clock()) as store:
        yield store


@pytest.fixture
def thread(store: Store) -> str:
    return store.threads.create().id


def test_a_message_is_kept_as_it_was_given(store: Store, thread: str) -> None:
    content = [text_part("Grüße \0 \ud800 \U0001f600"), {"type": "image_file", "image_file": {}}]
    made = store.messages.create(
        thread,
        role="assistant",
        content=content,
        file_ids=["file-b", "file-a"],
        assistant_id="jan",
        run_id="run_1",
        chat_completion_id="chatcmpl-1",
        status="incomplete",
        completed_at=7,
        metadata={"a": 1},
    )
    assert made == store.messages.get(thread, made.id)
    assert made == Message(
        id=made.id,
        thread_id=thread,
        created_at=int(Clock().now),
        role="assistant",
        content=tuple(content),
        file_ids=("file-b", "file-a"),
        assistant_id="jan",
        run_id="run_1",
        chat_completion_id="chatcmpl-1",
        status="incomplete",
        completed_at=7,
        metadata={"a": 1},
    )
    assert made.id.startswith("msg_")
    assert made.text == "Grüße \0 \ud800 \U0001f600"


def test_a_message_belongs_to_its_thread_alone(store: Store, thread: str) -> None:
    made = store.messages.create(thread, role="user")
    other = store.threads.create().id
    for call in (
        lambda: store.messages.get(other, made.id),
        lambda: store.messages.update(other, made.id, status="incomplete"),
        lambda: store.messages.delete(other, made.id),
        lambda: store.messages.files(other, made.id),
    ):
        with pytest.raises(NotFound) as caught:
            call()
        assert (caught.value.kind, caught.value.id) == ("message", made.id)
    with pytest.raises(InvalidRequest):
        store.messages.list(other, after=made.id)
    assert store.messages.get(thread, made.id) == made


def test_no_message_is_written_to_an_unknown_thread(store: Store) -> None:
    with pytest.raises(NotFound) as caught:
        store.messages.create("thread_gone", role="user")
    assert caught.value.kind == "thread"
    with pytest.raises(NotFound):
        store.threads.get("thread_gone")


def test_messages_stay_in_order(store: Store, thread: str) -> None:
    ids = [store.messages.create(thread, role="user").id for _ in range(5)]
    assert [one.id for one in store.messages.list(thread, order="asc").data] == ids
    assert [one.id for one in store.messages.list(thread).data] == ids[::-1]
    page = store.messages.list(thread, order="asc", after=ids[1], limit=2)
    assert [one.id for one in page.data] == ids[2:4]
    assert (page.first_id, page.last_id, page.has_more) == (ids[2], ids[3], True)


def test_many_messages_come_in_their_order(store: Store, thread: str) -> None:
    first = store.messages.create(thread, role="user")
    given: list[Any] = [
        {"role": "user", "content": [text_part(str(number))], "metadata": {"n": number}}
        for number in range(1100)
    ]
    given[700] = {"role": "assistant", "file_ids": ["b", "a"], "id": f"m_700_{thread}"}
    made = store.messages.create_many(thread, given)
    assert store.messages.list(thread, limit=None, order="asc").data == (first, *made)
    assert [one.text for one in made] == [str(n) if n != 700 else "" for n in range(1100)]
    assert [one.id for one in made if one.role == "assistant"] == [f"m_700_{thread}"]
    assert [file.id for file in store.messages.files(thread, made[700].id)] == ["b", "a"]
    assert made[5] == store.messages.get(thread, made[5].id)
    assert store.messages.create_many(thread, []) == ()


def test_many_messages_are_written_by_one_statement(store: Store, thread: str) -> None:
    inserts = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        inserts.extend([statement] if statement.startswith("INSERT") else [])

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        store.messages.create_many(thread, [{"role": "user", "file_ids": ["a"]}] * 50)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert len(inserts) == 2  # of the messages, and of their files


@pytest.mark.parametrize("taken", ["first", "twice"])
def test_many_messages_are_all_made_or_none(store: Store, thread: str, taken: str) -> None:
    first = store.messages.create(thread, role="user", id=f"first_{thread}")
    other = store.threads.create().id
    given: list[Any] = [{"role": "user", "file_ids": ["a"]} for _ in range(600)]
    given[0]["id"] = f"twice_{thread}"
    given[-1]["id"] = f"{taken}_{thread}"
    with pytest.raises(Conflict) as caught:
        store.messages.create_many(other, given)
    assert (caught.value.kind, caught.value.id) == ("message", f"{taken}_{thread}")
    assert store.messages.list(other).data == ()
    assert store.messages.list(thread).data == (first,)


def test_a_refused_many_leaves_its_transaction_as_it_was(store: Store) -> None:
    with store.transaction():
        thread = store.threads.create().id
        kept = store.messages.create(thread, role="user")
        with pytest.raises(Conflict):
            store.messages.create_many(thread, [{"role": "user"}, {"role": "user", "id": kept.id}])
    assert store.messages.list(thread).data == (kept,)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": "a/b"}, "messages/1/id"),
        ({"file_ids": ["a", ".."]}, "messages/1/file_ids/1"),
        ({"file_ids": ["a", "a"]}, "messages/1/file_ids"),
        ({"metadata": {"n": float("nan")}}, "messages/1/metadata"),
    ],
)
def test_what_is_wrong_with_one_of_many_is_named(
    store: Store, thread: str, fields: Any, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.messages.create_many(thread, [{"role": "user"}, {"role": "user", **fields}])
    assert caught.value.field == field
    assert store.messages.list(thread).data == ()


def test_many_messages_are_not_written_to_an_unknown_thread(store: Store) -> None:
    for messages in ([], [{"role": "user"}]):
        with pytest.raises(NotFound) as caught:
            store.messages.create_many("thread_gone", messages)  # type: ignore[arg-type]
        assert caught.value.kind == "thread"


def test_the_messages_of_one_run_are_listed(store: Store, thread: str) -> None:
    store.messages.create(thread, role="user")
    answer = store.messages.create(thread, role="assistant", run_id="run_1")
    assert store.messages.list(thread, run_id="run_1").data == (answer,)
    assert store.messages.list(thread, run_id="run_2").data == ()
    assert store.messages.list(thread, run_id="\ud800").data == ()


def test_the_ids_of_many_threads_come_at_once(store: Store) -> None:
    expected: dict[str, tuple[str, ...]] = {}
    for number in range(520):
        thread = store.threads.create().id
        some = range(2 if number % 100 == 0 else 0)
        expected[thread] = tuple(store.messages.create(thread, role="user").id for _ in some)
    assert store.messages.ids(list(expected)) == expected


def test_an_update_changes_what_it_names(store: Store, thread: str) -> None:
    made = store.messages.create(thread, role="user", file_ids=["a"], metadata={"a": 1})
    changed = store.messages.update(thread, made.id, metadata={"b": 2}, status="incomplete")
    assert changed == store.messages.get(thread, made.id)
    assert (changed.metadata, changed.status, changed.file_ids) == ({"b": 2}, "incomplete", ("a",))


@pytest.mark.parametrize("field", ["role", "thread_id", "file_ids", "nonsense"])
def test_what_a_message_is_stays(store: Store, thread: str, field: str) -> None:
    made = store.messages.create(thread, role="user")
    wrong: dict[str, Any] = {field: "x"}
    if field == "thread_id":
        with pytest.raises(TypeError):
            store.messages.update(thread, made.id, **wrong)
        return
    with pytest.raises(TypeError, match="to change"):
        store.messages.update(thread, made.id, **wrong)


def test_a_deleted_message_is_gone_with_its_files(store: Store, thread: str) -> None:
    made = store.messages.create(thread, role="user", file_ids=["a"])
    store.messages.delete(thread, made.id)
    with pytest.raises(NotFound):
        store.messages.get(thread, made.id)
    again = store.messages.create(thread, id=made.id, role="user")
    assert again.file_ids == ()


def test_files_are_found_by_their_message(store: Store, thread: str) -> None:
    made = store.messages.create(thread, role="user", file_ids=["b", "a"])
    other = store.messages.create(thread, role="user", file_ids=["a"])
    files = store.messages.files(thread, made.id)
    assert [file.id for file in files] == ["b", "a"]
    assert {file.message_id for file in files} == {made.id}
    assert store.messages.file(thread, other.id, "a").message_id == other.id
    for unknown in ("b", "..", "\0"):
        with pytest.raises(NotFound) as caught:
            store.messages.file(thread, other.id, unknown)
        assert caught.value.kind == "file"


@pytest.mark.parametrize("files", [["a", "a"], [".."], ["a/b"], [""]])
def test_files_that_are_no_ids_or_twice_are_refused(
    store: Store, thread: str, files: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.messages.create(thread, role="user", file_ids=files)
    assert str(caught.value.field).startswith("file_ids")
    assert store.messages.list(thread).data == ()


def test_an_id_is_given_once_over_all_threads(store: Store, thread: str) -> None:
    made = store.messages.create(thread, role="user")
    other = store.threads.create().id
    with pytest.raises(Conflict):
        store.messages.create(other, id=made.id, role="user", file_ids=["x"])
    assert store.messages.get(thread, made.id) == made


def test_messages_and_runs_go_with_their_thread(store: Store, thread: str) -> None:
    made = store.messages.create(thread, role="user", file_ids=["a"])
    run = store.runs.create(thread, assistant_id="jan")
    store.threads.delete(thread)
    store.threads.create(id=thread)
    assert store.messages.list(thread).data == ()
    assert store.runs.list(thread).data == ()
    store.messages.create(thread, id=made.id, role="user")
    assert store.messages.files(thread, made.id) == ()
    store.runs.create(thread, id=run.id, assistant_id="jan")
