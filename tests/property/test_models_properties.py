"""Whatever text a client sends as an id or a file name, nothing outside the folder is reached."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.model_names import BAD_IDS, GOOD_IDS

from nitrolib.errors import Conflict, InvalidRequest, ModelNotFound
from nitrolib.models import Manifest, Registry, check_id
from nitrolib.models.ids import check_file_name, id_from_name, is_direct

PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "a", "b.gguf", "~", "C:", "con", " ", "\0", "\n", "%2e", "é", "\u202e"]
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(PIECES, max_size=8).map("".join),
    st.sampled_from([*BAD_IDS, *GOOD_IDS]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | TEXTS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["settings", "parameters", "sources", "ctx_len", "filename", "url", "created",
             "llama_model_path", "stop", "name", "version", "metadata", "source_url", "engine"]
        ) | st.text(max_size=5),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(text=TEXTS)
@settings(max_examples=500, deadline=None)
def test_no_id_escapes_the_root(text: str) -> None:
    root = Path(tempfile.gettempdir()) / "root"
    try:
        check_id(text)
    except InvalidRequest:
        return
    path = Path(os.path.normpath(root.joinpath(*text.split("/"))))
    assert path.is_relative_to(root)
    assert path != root
    assert path.relative_to(root).as_posix() == text  # and no other id has this folder
    assert is_direct(path, root)


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_no_file_name_escapes_the_folder(text: str) -> None:
    for make in (check_file_name, id_from_name):
        try:
            name = make(text)
        except InvalidRequest:
            continue
        folder = Path(tempfile.gettempdir()) / "m"
        assert Path(os.path.normpath(folder / name)).parent == folder


@given(text=TEXTS)
@example(text="linked/x")
@settings(max_examples=150, deadline=None)
def test_nothing_outside_changes_whatever_is_asked_for(text: str) -> None:
    with tempfile.TemporaryDirectory() as above:
        outside = Path(above) / "outside"
        (outside / "x").mkdir(parents=True)
        (outside / "x" / "model.json").write_text("{}")
        registry = Registry(Path(above) / "models")
        registry.root.mkdir()
        with contextlib.suppress(OSError):
            (registry.root / "linked").symlink_to(outside)
        for act in (
            lambda: registry.get(text),
            lambda: registry.find(text),
            lambda: registry.add(text, source_url="https://h/m.gguf"),
            lambda: registry.update(text, name="n"),
            lambda: registry.remove(text),
        ):
            with contextlib.suppress(InvalidRequest, ModelNotFound, Conflict):
                act()
        assert sorted(path.name for path in Path(above).iterdir()) == ["models", "outside"]
        assert [*outside.rglob("*")] == [outside / "x", outside / "x" / "model.json"]
        assert (outside / "x" / "model.json").read_text() == "{}"


@given(document=JSON)
@settings(max_examples=500, deadline=None)
def test_any_document_is_read_or_refused_and_what_is_read_can_be_written(document: Any) -> None:
    try:
        manifest = Manifest.parse(document, "m")
    except InvalidRequest:
        return
    try:
        text = json.dumps(manifest.as_json(), allow_nan=False)
    except ValueError:
        return  # numbers that no file can hold came through a key that is not ours
    assert Manifest.parse(json.loads(text), "m") == manifest
