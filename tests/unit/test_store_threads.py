"""Threads of a store, and what all its tables have in common: ids, order, pages, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.stores import KINDS, Clock, opened

from nitrolib.errors import Conflict, InvalidRequest, NotFound
from nitrolib.store import Thread, is_id, new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nitrolib.store import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS, scope="module")
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> Iterator[Store]:
    with opened(request.param, tmp_path_factory.mktemp("store"), clock) as store:
        yield store


@pytest.fixture
def store(shared: Store) -> Store:
    for thread in shared.threads.list(limit=None).data:
        shared.threads.delete(thread.id)
    return shared


def test_a_thread_is_kept_as_it_was_given(store: Store) -> None:
    assistants = [{"assistant_id": "jan", "instructions": "Be \u0000 brief \ud800 \U0001f600"}]
    made = store.threads.create(
        title="Zwölf Äpfel \U0001f34e",
        assistants=assistants,
        model_id="tiny",
        settings={"ctx_len": 512},
        parameters={"temperature": 0.1, "stop": ["x"]},
        metadata={"nested": {"a": [1, None, True]}, "big": 10**30},
    )
    assert made == store.threads.get(made.id)
    assert made.assistants == tuple(assistants)
    assert made.metadata == {"nested": {"a": [1, None, True]}, "big": 10**30}
    assert (made.title, made.model_id) == ("Zwölf Äpfel \U0001f34e", "tiny")


def test_a_thread_needs_nothing(store: Store, clock: Clock) -> None:
    made = store.threads.create()
    assert made == Thread(id=made.id, created_at=int(clock.now))
    assert made.id.startswith("thread_")
    assert is_id(made.id)


def test_an_update_changes_what_it_names_and_nothing_else(store: Store) -> None:
    made = store.threads.create(title="before", metadata={"a": 1})
    changed = store.threads.update(made.id, title="after", model_id=None)
    assert changed == store.threads.get(made.id)
    assert (changed.title, changed.metadata, changed.created_at) == (
        "after",
        {"a": 1},
        made.created_at,
    )
    assert store.threads.update(made.id) == changed


def test_what_cannot_be_changed_is_refused(store: Store) -> None:
    made = store.threads.create()
    wrong: dict[str, Any] = {"created_at": 1}
    with pytest.raises(TypeError, match="no created_at to change"):
        store.threads.update(made.id, **wrong)
    assert store.threads.get(made.id) == made


def test_a_deleted_thread_is_gone(store: Store) -> None:
    made = store.threads.create()
    store.threads.delete(made.id)
    with pytest.raises(NotFound) as caught:
        store.threads.get(made.id)
    assert (caught.value.kind, caught.value.id) == ("thread", made.id)
    with pytest.raises(NotFound):
        store.threads.delete(made.id)
    with pytest.raises(NotFound):
        store.threads.update(made.id, title="x")


@pytest.mark.parametrize(
    "given",
    ["", "nothing", "..", "a/b", "a\\b", "\0", "\ud800", "x" * 100_000, "'; DROP TABLE threads"],
)
def test_whatever_is_asked_for_is_not_found(store: Store, given: str) -> None:
    with pytest.raises(NotFound):
        store.threads.get(given)
    with pytest.raises(NotFound):
        store.messages.list(given)
    with pytest.raises(NotFound):
        store.messages.create(given, role="user")
    with pytest.raises(NotFound):
        store.runs.list(given)
    with pytest.raises(NotFound):
        store.assistants.get(given)
    with pytest.raises(NotFound):
        store.responses.get(given)


def test_an_id_may_be_given_once(store: Store) -> None:
    first = store.threads.create(id="jan_1700000000", created_at=5)
    assert (first.id, first.created_at) == ("jan_1700000000", 5)
    with pytest.raises(Conflict):
        store.threads.create(id="jan_1700000000", title="another")
    assert store.threads.get(first.id) == first


@pytest.mark.parametrize("given", ["", ".", "..", "a/b", "a\\b", "-x", "a\nb", "x" * 129, "ä"])
def test_an_id_that_could_be_a_path_is_refused(store: Store, given: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.threads.create(id=given)
    assert caught.value.field == "id"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "a\0b"),
        ("title", "\ud800"),
        ("metadata", {"a": float("nan")}),
        ("metadata", {"a": object()}),
        ("created_at", 1 << 63),
    ],
)
def test_what_cannot_be_kept_as_it_is_is_refused(store: Store, field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.threads.create(**{field: value})
    assert caught.value.field == field
    assert store.threads.list().data == ()


def test_a_record_shares_nothing_with_the_store(store: Store) -> None:
    metadata = {"a": [1]}
    made = store.threads.create(metadata=metadata)
    metadata["a"].append(2)
    made.metadata["b"] = 3
    assert store.threads.get(made.id).metadata == {"a": [1]}


class TestPages:
    @pytest.fixture
    def ids(self, store: Store) -> list[str]:
        """Seven threads of one second, oldest first."""
        return [store.threads.create(title=str(number)).id for number in range(7)]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_pages_join_to_the_whole_list(
        self, store: Store, ids: list[str], order: Any, limit: int
    ) -> None:
        whole = ids if order == "asc" else ids[::-1]
        found: list[str] = []
        after = None
        while True:
            page = store.threads.list(limit=limit, order=order, after=after)
            found += [thread.id for thread in page.data]
            assert page.has_more == (len(found) < len(whole))
            if not page.has_more:
                break
            assert len(page.data) == limit
            after = page.last_id
        assert found == whole

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_before_pages_backwards_in_the_same_order(
        self, store: Store, ids: list[str], order: Any
    ) -> None:
        whole = ids if order == "asc" else ids[::-1]
        page = store.threads.list(limit=2, order=order, before=whole[5])
        assert [thread.id for thread in page.data] == whole[3:5]
        assert page.has_more
        page = store.threads.list(limit=4, order=order, before=page.first_id)
        assert [thread.id for thread in page.data] == whole[:3]
        assert not page.has_more

    def test_after_and_before_bound_both_ends(self, store: Store, ids: list[str]) -> None:
        page = store.threads.list(order="asc", after=ids[1], before=ids[5])
        assert [thread.id for thread in page.data] == ids[2:5]
        page = store.threads.list(order="asc", after=ids[1], before=ids[5], limit=1)
        assert [thread.id for thread in page.data] == ids[2:3]
        assert page.has_more

    def test_no_limit_is_the_whole_list(self, store: Store, ids: list[str]) -> None:
        page = store.threads.list(limit=None, order="asc")
        assert [thread.id for thread in page.data] == ids
        assert not page.has_more

    def test_an_empty_list_has_no_ends(self, store: Store) -> None:
        page = store.threads.list()
        assert (page.data, page.first_id, page.last_id, page.has_more) == ((), None, None, False)

    def test_threads_of_one_second_stay_in_order(self, store: Store, ids: list[str]) -> None:
        page = store.threads.list()
        assert [thread.id for thread in page.data] == ids[::-1]
        assert len({thread.created_at for thread in page.data}) == 1

    @pytest.mark.parametrize("limit", [0, -1, 101])
    def test_a_limit_outside_the_range_is_refused(self, store: Store, limit: int) -> None:
        with pytest.raises(InvalidRequest) as caught:
            store.threads.list(limit=limit)
        assert (caught.value.field, caught.value.value) == ("limit", limit)

    def test_an_unknown_order_is_refused(self, store: Store) -> None:
        wrong: Any = "random"
        with pytest.raises(InvalidRequest) as caught:
            store.threads.list(order=wrong)
        assert caught.value.field == "order"

    @pytest.mark.parametrize("field", ["after", "before"])
    @pytest.mark.parametrize("given", ["thread_gone", "\0", "\ud800"])
    def test_a_page_from_nowhere_is_refused(self, store: Store, field: str, given: str) -> None:
        cursor: Any = {field: given}
        with pytest.raises(InvalidRequest) as caught:
            store.threads.list(**cursor)
        assert caught.value.field == field


def test_ids_are_never_the_same() -> None:
    assert len({new_id("x") for _ in range(1000)}) == 1000


def test_the_names_load_no_database_library() -> None:
    code = (
        "import sys, nitrolib.store; nitrolib.store.Store\n"
        "print(*({'sqlalchemy', 'alembic', 'psycopg'} & sys.modules.keys()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == ""
