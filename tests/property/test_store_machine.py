"""Threads, messages, assistants and models, changed in any order, against plain lists in memory."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from support.stores import KINDS, store_url

from nitrolib import demo
from nitrolib.errors import Conflict, Forbidden, InvalidRequest, ModelNotFound, NotFound
from nitrolib.models import Registry
from nitrolib.store import Store

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
json_objects = st.dictionaries(st.text(max_size=5), json_values, max_size=3)
orders = st.sampled_from(["asc", "desc"])
limits = st.none() | st.integers(1, 4)
model_ids = st.sampled_from(["tiny", "org/small", "org/large", "a.b-c"])


def page_of(
    items: list[str], limit: int | None, order: str, after: str | None, before: str | None
) -> tuple[list[str], bool]:
    """What a page of *items*, oldest first, must hold, and whether there is more."""
    found = items if order == "asc" else items[::-1]
    if before is not None:
        found = found[: found.index(before)]
    if after is not None:
        found = found[found.index(after) + 1 :] if after in found else []
    if limit is None or len(found) <= limit:
        return found, False
    return (found[-limit:] if before is not None and after is None else found[:limit]), True


class Machine(RuleBasedStateMachine):
    """`expected_*` are what the store must hold, oldest first."""

    kind = "sqlite"
    threads = Bundle("threads")
    messages = Bundle("messages")
    assistants = Bundle("assistants")

    def __init__(self) -> None:
        super().__init__()
        self._exit = contextlib.ExitStack()
        folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory()))
        self._url = self._exit.enter_context(store_url(self.kind, folder))
        self._models = folder / "models"
        self.registry = Registry(self._models)
        self.store = Store.open(self._url)
        self.expected_threads: dict[str, dict[str, Any]] = {}
        self.expected_messages: dict[str, dict[str, dict[str, Any]]] = {}
        self.expected_assistants: dict[str, dict[str, Any]] = {}
        self.expected_models: set[str] = set()

    def teardown(self) -> None:
        self.store.close()
        self._exit.close()

    @initialize()
    def the_built_in_assistant_is_there(self) -> None:
        built_in = self.store.assistants.get("jan")
        self.expected_assistants["jan"] = {
            "name": built_in.name,
            "instructions": built_in.instructions,
            "metadata": {},
        }

    # ---- threads -----------------------------------------------------------------------------

    @rule(target=threads, title=texts, metadata=json_objects)
    def create_thread(self, title: str, metadata: dict[str, Any]) -> str:
        made = self.store.threads.create(title=title, metadata=metadata)
        self.expected_threads[made.id] = {"title": title, "metadata": metadata}
        self.expected_messages[made.id] = {}
        return made.id

    @rule(
        thread=threads,
        changes=st.fixed_dictionaries({}, optional={"title": texts, "metadata": json_objects}),
    )
    def update_thread(self, thread: str, changes: dict[str, Any]) -> None:
        if thread not in self.expected_threads:
            with pytest.raises(NotFound):
                self.store.threads.update(thread, **changes)
            return
        self.store.threads.update(thread, **changes)
        self.expected_threads[thread] |= changes

    @rule(thread=threads)
    def delete_thread(self, thread: str) -> None:
        if self.expected_threads.pop(thread, None) is None:
            with pytest.raises(NotFound):
                self.store.threads.delete(thread)
            return
        self.store.threads.delete(thread)
        del self.expected_messages[thread]

    @rule(thread=threads)
    def take_the_id_again(self, thread: str) -> None:
        if thread in self.expected_threads:
            with pytest.raises(Conflict):
                self.store.threads.create(id=thread)
            return
        self.store.threads.create(id=thread)
        self.expected_threads[thread] = {"title": "", "metadata": {}}
        self.expected_messages[thread] = {}

    # ---- messages ----------------------------------------------------------------------------

    @rule(
        target=messages,
        thread=threads,
        role=st.sampled_from(["user", "assistant"]),
        content=st.lists(json_objects, max_size=2),
        files=st.lists(st.sampled_from(["f1", "f2", "f3"]), unique=True),
        metadata=json_objects,
    )
    def create_message(
        self, thread: str, role: str, content: list[Any], files: list[str], metadata: dict[str, Any]
    ) -> Any:
        fields: dict[str, Any] = {"content": content, "file_ids": files, "metadata": metadata}
        if thread not in self.expected_threads:
            with pytest.raises(NotFound):
                self.store.messages.create(thread, role=role, **fields)
            return multiple()
        made = self.store.messages.create(thread, role=role, **fields)
        self.expected_messages[thread][made.id] = {
            "role": role,
            "content": tuple(content),
            "file_ids": tuple(files),
            "metadata": metadata,
        }
        return thread, made.id

    @rule(
        target=messages,
        thread=threads,
        contents=st.lists(st.lists(json_objects, max_size=2), max_size=4),
        taken=st.none() | messages,
    )
    def create_messages(self, thread: str, contents: list[Any], taken: Any) -> Any:
        """Several at once; *taken* is the id that the last one wants, free where it was deleted."""
        fields: list[Any] = [{"role": "user", "content": content} for content in contents]
        if taken is not None:
            fields.append({"role": "user", "id": taken[1]})
        if thread not in self.expected_threads:
            with pytest.raises(NotFound):
                self.store.messages.create_many(thread, fields)
            return multiple()
        if taken is not None and any(taken[1] in ids for ids in self.expected_messages.values()):
            with pytest.raises(Conflict):
                self.store.messages.create_many(thread, fields)
            return multiple()
        made = self.store.messages.create_many(thread, fields)
        for one, given in zip(made, fields, strict=True):
            self.expected_messages[thread][one.id] = {
                "role": "user",
                "content": tuple(given.get("content", ())),
                "file_ids": (),
                "metadata": {},
            }
        return multiple(*((thread, one.id) for one in made))

    @rule(message=messages, metadata=json_objects)
    def update_message(self, message: tuple[str, str], metadata: dict[str, Any]) -> None:
        thread, key = message
        if key not in self.expected_messages.get(thread, {}):
            with pytest.raises(NotFound):
                self.store.messages.update(thread, key, metadata=metadata)
            return
        self.store.messages.update(thread, key, metadata=metadata)
        self.expected_messages[thread][key]["metadata"] = metadata

    @rule(message=consumes(messages))
    def delete_message(self, message: tuple[str, str]) -> None:
        thread, key = message
        if self.expected_messages.get(thread, {}).pop(key, None) is None:
            with pytest.raises(NotFound):
                self.store.messages.delete(thread, key)
            return
        self.store.messages.delete(thread, key)

    @rule(message=messages, other=threads)
    def look_in_another_thread(self, message: tuple[str, str], other: str) -> None:
        thread, key = message
        if other != thread and key not in self.expected_messages.get(other, {}):
            with pytest.raises(NotFound):
                self.store.messages.get(other, key)

    # ---- assistants --------------------------------------------------------------------------

    @rule(target=assistants, name=texts, instructions=texts, metadata=json_objects)
    def create_assistant(self, **fields: Any) -> str:
        made = self.store.assistants.create(**fields)
        self.expected_assistants[made.id] = fields
        return made.id

    @rule(
        assistant=assistants | st.just("jan"),
        changes=st.fixed_dictionaries({}, optional={"name": texts, "instructions": texts}),
    )
    def update_assistant(self, assistant: str, changes: dict[str, Any]) -> None:
        if assistant not in self.expected_assistants:
            with pytest.raises(NotFound):
                self.store.assistants.update(assistant, **changes)
            return
        self.store.assistants.update(assistant, **changes)
        self.expected_assistants[assistant] |= changes

    @rule(assistant=assistants | st.just("jan"))
    def delete_assistant(self, assistant: str) -> None:
        if assistant == "jan":
            with pytest.raises(Forbidden):
                self.store.assistants.delete(assistant)
        elif self.expected_assistants.pop(assistant, None) is None:
            with pytest.raises(NotFound):
                self.store.assistants.delete(assistant)
        else:
            self.store.assistants.delete(assistant)

    # ---- models ------------------------------------------------------------------------------

    @rule(model=model_ids, name=texts)
    def add_model(self, model: str, name: str) -> None:
        self.registry.add(model, path=demo.model_path(), name=name)
        self.expected_models.add(model)

    @rule(model=model_ids)
    def take_the_id_of_a_model(self, model: str) -> None:
        if model in self.expected_models:
            with pytest.raises(Conflict):
                self.registry.add(model, source_url="https://example.org/other.gguf")

    @rule(model=model_ids)
    def remove_model(self, model: str) -> None:
        if model not in self.expected_models:
            with pytest.raises(ModelNotFound):
                self.registry.remove(model)
            return
        self.registry.remove(model)
        self.expected_models.remove(model)
        assert Path(demo.model_path()).is_file()

    # ---- everything --------------------------------------------------------------------------

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store.open(self._url)
        self.registry = Registry(self._models)

    @rule(data=st.data(), limit=limits, order=orders)
    def page_through(self, data: st.DataObject, limit: int | None, order: Any) -> None:
        which = data.draw(st.sampled_from(["threads", "assistants", *self.expected_messages]))
        lister: Any = getattr(self.store, which, None)
        if lister is None:
            items = list(self.expected_messages[which])
            pages = lambda **query: self.store.messages.list(which, **query)  # noqa: E731
        else:
            items = [*(self.expected_threads if which == "threads" else self.expected_assistants)]
            pages = lister.list
        cursors = st.none() | st.sampled_from(items) if items else st.none()
        after, before = data.draw(cursors), data.draw(cursors)
        page = pages(limit=limit, order=order, after=after, before=before)
        expected, more = page_of(items, limit, order, after, before)
        assert [one.id for one in page.data] == expected
        assert page.has_more == more

    @rule(cursor=texts)
    def page_from_nowhere(self, cursor: str) -> None:
        if cursor not in self.expected_threads:
            with pytest.raises(InvalidRequest):
                self.store.threads.list(after=cursor)

    @invariant()
    def everything_is_as_expected(self) -> None:
        threads = self.store.threads.list(limit=None, order="asc").data
        assert {
            one.id: {"title": one.title, "metadata": one.metadata} for one in threads
        } == self.expected_threads
        assert [one.id for one in threads] == list(self.expected_threads)
        for thread, expected in self.expected_messages.items():
            messages = self.store.messages.list(thread, limit=None, order="asc").data
            assert [one.id for one in messages] == list(expected)
            for one in messages:
                shown = {name: getattr(one, name) for name in expected[one.id]}
                assert shown == expected[one.id]
        for one in self.store.assistants.list(limit=None).data:
            shown = {name: getattr(one, name) for name in ("name", "instructions", "metadata")}
            assert shown == self.expected_assistants[one.id]
        assert {entry.id for entry in self.registry.entries()} == self.expected_models


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_does_what_plain_lists_do(kind: str) -> None:
    machine = type("Machine", (Machine,), {"kind": kind})
    examples = 40 if kind == "sqlite" else 10  # a call to a server takes milliseconds
    bounds = settings(max_examples=examples, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(machine, settings=bounds)
