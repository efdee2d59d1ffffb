"""Assistants, runs and responses of a store."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.stores import KINDS, Clock, opened

from nitrolib.errors import Conflict, Forbidden, NotFound
from nitrolib.store import Assistant, Run, StoredResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nitrolib.store import Store


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS, scope="module")
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> Iterator[Store]:
    with opened(request.param, tmp_path_factory.mktemp("store"), clock) as store:
        yield store


@pytest.fixture
def thread(store: Store) -> str:
    return store.threads.create().id


class TestAssistants:
    def test_the_built_in_one_is_always_there(self, store: Store) -> None:
        built_in = store.assistants.get("jan")
        assert built_in.name == "Jan"
        assert built_in.models == ({"model_id": "*"},)
        assert store.assistants.list(order="asc", limit=1).data == (built_in,)

    def test_the_built_in_one_stays(self, store: Store) -> None:
        with pytest.raises(Forbidden):
            store.assistants.delete("jan")
        assert store.assistants.get("jan")

    def test_an_assistant_is_kept_as_it_was_given(self, store: Store) -> None:
        fields: dict[str, Any] = {
            "name": "Poet",
            "description": None,
            "instructions": "Answer in rhymes.",
            "model": "tiny",
            "models": ({"model_id": "tiny"},),
            "avatar": "https://example.org/a.png",
            "tools": ({"type": "function"},),
            "events": {"in": [], "out": []},
            "parameters": {"temperature": 0.2},
            "metadata": {"a": 1},
        }
        made = store.assistants.create(**fields)
        assert made == store.assistants.get(made.id)
        assert made == Assistant(id=made.id, created_at=made.created_at, **fields)
        assert made.id.startswith("asst_")
        changed = store.assistants.update(made.id, description="d", model=None)
        assert (changed.description, changed.model, changed.name) == ("d", None, "Poet")
        store.assistants.delete(made.id)
        with pytest.raises(NotFound) as caught:
            store.assistants.get(made.id)
        assert caught.value.kind == "assistant"


class TestRuns:
    def test_a_run_is_kept_as_it_was_given(self, store: Store, thread: str) -> None:
        made = store.runs.create(
            thread,
            assistant_id="jan",
            model="tiny",
            instructions="Be brief.",
            parameters={"temperature": 0},
            metadata={"a": 1},
            expires_at=9_999_999_999,
        )
        assert made == store.runs.get(thread, made.id)
        assert made == Run(
            id=made.id,
            thread_id=thread,
            created_at=made.created_at,
            assistant_id="jan",
            model="tiny",
            instructions="Be brief.",
            parameters={"temperature": 0},
            metadata={"a": 1},
            expires_at=9_999_999_999,
        )
        assert (made.status, made.usage, made.last_error) == ("queued", None, None)

    def test_a_thread_has_one_active_run(self, store: Store, thread: str) -> None:
        first = store.runs.create(thread, assistant_id="jan")
        with pytest.raises(Conflict) as caught:
            store.runs.create(thread, assistant_id="jan")
        assert caught.value.facts == {"kind": "run", "id": first.id}
        assert store.runs.active(thread) == first.id
        store.runs.create(store.threads.create().id, assistant_id="jan")
        store.runs.update(thread, first.id, status="completed", usage={"total_tokens": 3})
        assert store.runs.active(thread) is None
        second = store.runs.create(thread, assistant_id="jan")
        assert [run.id for run in store.runs.list(thread).data] == [second.id, first.id]
        assert store.runs.get(thread, first.id).usage == {"total_tokens": 3}

    def test_of_many_at_once_one_is_made(self, store: Store, thread: str) -> None:
        outcomes: list[str] = []
        barrier = threading.Barrier(6)

        def create() -> None:
            barrier.wait()
            try:
                store.runs.create(thread, assistant_id="jan")
                outcomes.append("made")
            except Conflict:
                outcomes.append("refused")

        workers = [threading.Thread(target=create) for _ in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(outcomes) == ["made"] + ["refused"] * 5

    def test_a_run_that_should_have_ended_is_active_no_more(
        self, store: Store, thread: str, clock: Clock
    ) -> None:
        late = store.runs.create(thread, assistant_id="jan", expires_at=int(clock.now) + 600)
        assert store.runs.active(thread) == late.id
        clock.now += 601
        assert store.runs.active(thread) is None
        assert store.runs.get(thread, late.id).status == "expired"
        store.runs.create(thread, assistant_id="jan")

    def test_the_end_of_a_run_is_written_once(self, store: Store, thread: str) -> None:
        run = store.runs.create(thread, assistant_id="jan")
        store.runs.update(thread, run.id, only_if=["queued"], status="cancelled", cancelled_at=5)
        with pytest.raises(Conflict) as caught:
            store.runs.update(thread, run.id, only_if=["queued", "in_progress"], status="completed")
        assert caught.value.facts["status"] == "cancelled"
        found = store.runs.get(thread, run.id)
        assert (found.status, found.cancelled_at) == ("cancelled", 5)

    def test_a_run_belongs_to_its_thread_alone(self, store: Store, thread: str) -> None:
        run = store.runs.create(thread, assistant_id="jan")
        other = store.threads.create().id
        for call in (
            lambda: store.runs.get(other, run.id),
            lambda: store.runs.update(other, run.id, status="completed"),
        ):
            with pytest.raises(NotFound) as caught:
                call()
            assert caught.value.kind == "run"
        for call in (
            lambda: store.runs.get("thread_gone", run.id),
            lambda: store.runs.create("thread_gone", assistant_id="jan"),
            lambda: store.runs.list("thread_gone"),
            lambda: store.runs.active("thread_gone"),
        ):
            with pytest.raises(NotFound) as caught:
                call()
            assert caught.value.kind == "thread"


class TestResponses:
    def test_a_response_is_kept_as_it_was_given(self, store: Store) -> None:
        made = store.responses.create(
            id="resp_given",
            created_at=5,
            model="tiny",
            input=[{"role": "user", "content": "Hello"}],
            output=[{"type": "message", "content": []}],
            body={"status": "completed", "usage": {"total_tokens": 3}},
            metadata={"a": "1"},
        )
        assert made == store.responses.get("resp_given")
        assert made == StoredResponse(
            id="resp_given",
            created_at=5,
            model="tiny",
            input=({"role": "user", "content": "Hello"},),
            output=({"type": "message", "content": []},),
            body={"status": "completed", "usage": {"total_tokens": 3}},
            metadata={"a": "1"},
        )
        changed = store.responses.update(made.id, body={"status": "failed"}, output=[])
        assert (changed.body, changed.output, changed.input) == (
            {"status": "failed"},
            (),
            made.input,
        )

    def test_a_chain_is_what_a_response_goes_on_from(self, store: Store) -> None:
        first = store.responses.create(model="tiny", input=[{"n": 0}])
        chain = [first]
        for number in range(1, 60):
            previous = chain[-1].id
            chain.append(
                store.responses.create(model="tiny", previous_id=previous, input=[{"n": number}])
            )
        branch = store.responses.create(model="tiny", previous_id=chain[1].id)
        assert store.responses.chain(chain[-1].id) == tuple(chain)
        assert store.responses.chain(first.id) == (first,)
        assert store.responses.chain(branch.id) == (first, chain[1], branch)

    def test_a_chain_with_a_gap_is_refused(self, store: Store) -> None:
        first = store.responses.create(model="tiny")
        second = store.responses.create(model="tiny", previous_id=first.id)
        third = store.responses.create(model="tiny", previous_id=second.id)
        store.responses.delete(first.id)
        with pytest.raises(NotFound) as caught:
            store.responses.chain(third.id)
        assert (caught.value.kind, caught.value.id) == ("response", first.id)
        assert store.responses.get(third.id) == third

    def test_no_response_goes_on_from_an_unknown_one(self, store: Store) -> None:
        before = store.responses.list(limit=None).data
        with pytest.raises(NotFound):
            store.responses.create(model="tiny", previous_id="resp_gone")
        assert store.responses.list(limit=None).data == before
