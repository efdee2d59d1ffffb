"""The registry: one bad model hides nobody else, and nothing outside its folder is touched."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.gguf_draft import STRING as GGUF_STRING
from support.gguf_draft import array, string, u32
from support.gguf_maker import llama_draft, make_llama
from support.model_names import BAD_IDS

from nitrolib.errors import (
    Conflict,
    InvalidRequest,
    ModelFileError,
    ModelNotFound,
    StorageError,
)
from nitrolib.models import Registry, files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def put(registry: Registry, name: str, document: Any, *files: Path) -> Path:
    """A model's folder as somebody else made it."""
    folder = registry.root.joinpath(*name.split("/"))
    folder.mkdir(parents=True)
    if document is not None:
        text = document if isinstance(document, str) else json.dumps(document)
        (folder / "model.json").write_text(text, encoding="utf-8")
    for file in files:
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def ids(registry: Registry) -> list[str]:
    return [entry.id for entry in registry.entries()]


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# ---- looking -------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_an_empty_registry(registry: Registry) -> None:
    assert registry.entries() == ()
    assert registry.problems() == {}
    assert registry.find("a") is None
    with pytest.raises(ModelNotFound):
        registry.get("a")
    assert not registry.root.exists()


def test_models_are_folders_with_a_manifest_or_a_file(registry: Registry, gguf: Path) -> None:
    put(registry, "org/told", {"name": "Told"}, gguf)
    put(registry, "bare", None, gguf)
    put(registry, "absent", {"source_url": "https://h/m.gguf"})
    put(registry, "empty", None)
    put(registry, ".hidden", {}, gguf)
    (registry.root / "notes.txt").write_text("no model")
    assert ids(registry) == ["absent", "bare", "org/told"]
    told = registry.get("org/told")
    assert (told.name, told.present, told.in_place) == ("Told", True, False)
    assert told.path == registry.root / "org" / "told" / "tiny.gguf"
    assert told.files == (told.path,)
    assert told.size_bytes == gguf.stat().st_size
    absent = registry.get("absent")
    assert (absent.path, absent.present, absent.info, absent.size_bytes) == (None, False, None, 0)
    with pytest.raises(ModelNotFound, match="not there"):
        absent.examine()


def test_what_model_json_leaves_out_the_file_tells(registry: Registry, tmp_path: Path) -> None:
    draft = llama_draft(chat_template="{{ messages }}")
    draft["general.name"] = string("Tiny Llama")
    draft["general.description"] = string("small")
    draft["general.author"] = string("somebody")
    draft["general.license"] = string("mit")
    draft["general.size_label"] = string("1B")
    draft["general.file_type"] = u32(15)
    draft["general.tags"] = array(GGUF_STRING, ["a", "b"])
    put(registry, "m", None, draft.write(tmp_path / "f.gguf"))
    entry = registry.get("m")
    assert (entry.name, entry.description) == ("Tiny Llama", "small")
    assert entry.source_url == entry.assets[0] == (entry.folder / "f.gguf").as_uri()
    assert entry.created == int((entry.folder / "f.gguf").stat().st_mtime)
    facts = entry.examine()
    assert (facts.author, facts.license, facts.tags) == ("somebody", "mit", ("a", "b"))
    assert (facts.quantization, facts.size_label) == ("Q4_K_M", "1B")
    assert entry.info is not None
    assert entry.info.chat_template == "{{ messages }}"


def test_a_model_without_a_size_label_shows_its_parameters(registry: Registry, gguf: Path) -> None:
    put(registry, "m", None, gguf)
    facts = registry.get("m").examine()
    assert facts.size_label == f"{facts.info.n_params // 1000}K"
    assert facts.quantization == facts.info.quantization


def test_a_header_is_read_once_for_each_state_of_the_file(
    registry: Registry, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nitrolib.gguf

    reads = []
    real = nitrolib.gguf.open_gguf
    monkeypatch.setattr(nitrolib.gguf, "open_gguf", lambda p: reads.append(p) or real(p))
    folder = put(registry, "m", None, gguf)
    for _ in range(3):
        assert registry.get("m").info is not None
    assert len(reads) == 1
    make_llama(folder / "tiny.gguf", n_ctx_train=64)
    info = registry.get("m").info
    assert info is not None
    assert info.n_ctx_train == 64
    assert len(reads) == 2


def test_the_model_is_found_by_its_files_path(registry: Registry, gguf: Path) -> None:
    put(registry, "org/m", None, gguf)
    registry.add("here", path=gguf)
    path = registry.root / "org" / "m" / "tiny.gguf"
    found = registry.find(str(path))
    assert found is not None
    assert found.id == "org/m"
    assert registry.find(str(gguf)).id == "here"  # type: ignore[union-attr]
    assert registry.find(str(path.with_name("other.gguf"))) is None
    assert registry.find("a\0b.gguf") is None


def test_the_file_that_the_manifest_names_is_the_model(
    registry: Registry, gguf: Path, tmp_path: Path
) -> None:
    other = make_llama(tmp_path / "another.gguf")
    projector = make_llama(tmp_path / "a-mmproj.gguf")
    put(registry, "named", {"settings": {"llama_model_path": "tiny.gguf"}}, other, gguf)
    put(registry, "first", {}, gguf, other, projector)
    put(registry, "gone", {"settings": {"llama_model_path": "lost.gguf"}}, other)
    assert registry.get("named").path.name == "tiny.gguf"  # type: ignore[union-attr]
    assert registry.get("first").path.name == "another.gguf"  # type: ignore[union-attr]
    assert not registry.get("gone").present


def test_a_model_in_parts_is_there_when_all_of_them_are(registry: Registry, gguf: Path) -> None:
    folder = put(registry, "big", {})
    names = [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for name in names[:2]:
        (folder / name).write_bytes(gguf.read_bytes())
    assert not registry.get("big").present
    (folder / names[2]).write_bytes(gguf.read_bytes())
    assert [path.name for path in registry.get("big").files] == names


# ---- what cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    ["{", "[]", "null", '{"settings": 7}', "NaN", '{"a": ' * 100_000, "\0", '{"created": 1e999}',
     '{"settings": {"llama_model_path": "../../secret.gguf"}}'],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_broken_manifest_hides_that_model_alone(
    registry: Registry, gguf: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(registry, "bad", broken, gguf)
    put(registry, "good", None, gguf)
    with caplog.at_level(logging.WARNING):
        assert ids(registry) == ["good"]
        assert ids(registry) == ["good"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # told once
    assert "'bad'" in caplog.text
    assert {*registry.problems()} == {"bad"}
    with pytest.raises(ModelNotFound) as caught:
        registry.get("bad")
    assert caught.value.reason == registry.problems()["bad"]
    with pytest.raises(Conflict):
        registry.add("bad", path=gguf)
    registry.remove("bad")
    assert tree(registry.root) == {"good", "good/tiny.gguf"}


def test_a_manifest_that_is_too_large_or_no_file_is_not_read(registry: Registry) -> None:
    put(registry, "large", '{"x": "' + "a" * files.MAX_BYTES + '"}')
    folder = put(registry, "folder", None)
    (folder / "model.json").mkdir()
    assert registry.entries() == ()
    assert {*registry.problems()} == {"large", "folder"}


def test_a_file_that_is_no_model_is_told_by_examine(registry: Registry) -> None:
    folder = put(registry, "m", None)
    (folder / "m.gguf").write_bytes(b"<html>")
    entry = registry.get("m")
    assert entry.present
    assert (entry.facts, entry.info) == (None, None)
    assert (entry.name, entry.description) == ("m", "")
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        entry.examine()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_lead_nowhere(registry: Registry, gguf: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.json").write_text("{}")
    (outside / "secret.gguf").write_bytes(gguf.read_bytes())
    (outside / "sub").mkdir()
    (outside / "sub" / "model.json").write_text("{}")
    folder = put(registry, "m", {})
    (folder / "link.gguf").symlink_to(outside / "secret.gguf")
    manifest = put(registry, "manifest", None)
    (manifest / "model.json").symlink_to(outside / "model.json")
    (registry.root / "linked").symlink_to(outside)
    assert ids(registry) == ["m"]
    assert not registry.get("m").present
    for name in ("linked", "linked/sub", "manifest"):
        with pytest.raises(ModelNotFound):
            registry.get(name)
        with pytest.raises((Conflict, ModelNotFound)):
            registry.add(name, path=gguf)
    with pytest.raises(ModelNotFound):
        registry.remove("linked/sub")
    with pytest.raises(Conflict):
        registry.add("linked/new", path=gguf)
    registry.remove("linked")  # the link
    registry.remove("m")
    assert tree(outside) == {"model.json", "secret.gguf", "sub", "sub/model.json"}


# ---- changing ------------------------------------------------------------------------------------


def test_a_file_in_place_is_only_remembered(registry: Registry, gguf: Path) -> None:
    entry = registry.add("org/here", path=gguf, settings={"ctx_len": "64"}, name="Here")
    assert (entry.path, entry.in_place, entry.name) == (gguf, True, "Here")
    assert entry.source_url == gguf.as_uri()
    assert entry.manifest.settings == {"ctx_len": 64}
    assert tree(registry.root) == {"org", "org/here", "org/here/model.json"}
    assert Registry(registry.root).get("org/here") == entry
    registry.remove("org/here")
    assert tree(registry.root) == set()
    assert gguf.exists()


def test_a_file_in_place_that_goes_away_is_absent(registry: Registry, tmp_path: Path) -> None:
    path = make_llama(tmp_path / "with spaces & 100%25.gguf")
    assert registry.add("m", path=path).path == path
    path.unlink()
    entry = registry.get("m")
    assert (entry.present, entry.in_place) == (False, True)


def test_the_same_model_once_more_changes_nothing(registry: Registry, gguf: Path) -> None:
    first = registry.add("m", path=gguf, settings={"ctx_len": 64})
    assert registry.add("m", path=gguf, settings={"ctx_len": 128}) == first


def test_an_id_belongs_to_one_model(registry: Registry, gguf: Path, tmp_path: Path) -> None:
    registry.add("m", path=gguf)
    registry.add("org/m", source_url="https://h/m.gguf")
    with pytest.raises(Conflict, match="taken") as caught:
        registry.add("m", path=make_llama(tmp_path / "other.gguf"))
    assert caught.value.id == "m"
    with pytest.raises(Conflict, match="would lie in its folder"):
        registry.add("m/sub", path=gguf)
    with pytest.raises(Conflict, match="taken"):
        registry.add("org", path=gguf)


@pytest.mark.parametrize("bad", BAD_IDS, ids=lambda v: ascii(v)[:20])
def test_a_bad_id_touches_nothing(registry: Registry, gguf: Path, bad: str, tmp_path: Path) -> None:
    before = tree(tmp_path)
    with pytest.raises(InvalidRequest):
        registry.add(bad, path=gguf)
    with pytest.raises(ModelNotFound):
        registry.get(bad)
    with pytest.raises(ModelNotFound):
        registry.remove(bad)
    with pytest.raises(ModelNotFound):
        registry.update(bad, name="x")
    assert registry.find(bad) is None
    assert tree(tmp_path) == before


def test_what_is_added_must_be_a_model_or_have_an_origin(
    registry: Registry, tmp_path: Path
) -> None:
    page = tmp_path / "page.gguf"
    page.write_text("<html>")
    with pytest.raises(ModelFileError):
        registry.add("m", path=page)
    with pytest.raises(ModelFileError):
        registry.add("m", path=tmp_path / "none.gguf")
    with pytest.raises(InvalidRequest, match="source_url"):
        registry.add("m")
    with pytest.raises(InvalidRequest, match=r"settings\.ngl"):
        registry.add("m", source_url="https://h/m.gguf", settings={"ngl": "x"})
    assert registry.entries() == ()


def test_update_changes_fields_and_keeps_the_others(registry: Registry, gguf: Path) -> None:
    put(registry, "m", {"mine": 1, "parameters": {"top_k": "3"}}, gguf)
    entry = registry.update("m", name="New", settings={"ctx_len": "64"})
    assert (entry.name, entry.manifest.settings) == ("New", {"ctx_len": 64})
    assert entry.manifest.parameters == {"top_k": 3}
    assert entry.manifest.other == {"mine": 1}
    with pytest.raises(InvalidRequest):
        registry.update("m", settings={"ctx_len": []})
    assert registry.get("m") == entry
    assert tree(registry.root) == {"m", "m/model.json", "m/tiny.gguf"}


def test_remove_takes_the_folder_and_empty_ones_above(registry: Registry, gguf: Path) -> None:
    put(registry, "a/b/one", None, gguf)
    put(registry, "a/two", None, gguf)
    registry.remove("a/b/one")
    assert tree(registry.root) == {"a", "a/two", "a/two/tiny.gguf"}
    with pytest.raises(ModelNotFound):
        registry.remove("a")
    registry.remove("a/two")
    assert tree(registry.root) == set()
    with pytest.raises(ModelNotFound):
        registry.remove("a/two")


# ---- atomicity -----------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file(
    registry: Registry, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = registry.add("m", path=gguf, name="Old")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        registry.update("m", name="New")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(StorageError):
        registry.add("n", path=gguf)
    assert registry.entries() == (before,)
    assert tree(registry.root) == {"m", "m/model.json"}


def test_threads_that_add_one_id_agree_on_one_model(registry: Registry, gguf: Path) -> None:
    outcomes: list[str] = []
    gate = threading.Barrier(8)

    def add(number: int) -> None:
        gate.wait()
        try:
            registry.add("m", source_url=f"https://h/{number % 2}.gguf")
            outcomes.append("added")
        except Conflict:
            outcomes.append("taken")

    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["added"] * 4 + ["taken"] * 4
    assert tree(registry.root) == {"m", "m/model.json"}


PROCESS = """
import sys
from nitrolib.errors import Conflict, ModelNotFound
from nitrolib.models import Registry
registry, me = Registry(sys.argv[1]), int(sys.argv[2])
for round in range(60):
    try:
        entry = registry.add("org/m", source_url=f"https://h/{me}.gguf", name="x" * 5000)
        assert len(entry.manifest.name) == 5000
    except (Conflict, ModelNotFound):
        pass
    for entry in registry.entries():
        assert len(entry.manifest.name) == 5000, entry
    assert not registry.problems(), registry.problems()
    try:
        registry.remove("org/m")
    except ModelNotFound:
        pass
"""


def test_a_model_that_was_in_the_way_for_a_moment_is_not(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process had it there when the folder was to get its name, and removed it."""
    rename, tried = os.rename, []

    def in_the_way(source: Path, target: Path) -> None:
        tried.append(target)
        if len(tried) == 1:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        rename(source, target)

    monkeypatch.setattr(os, "rename", in_the_way)
    assert registry.add("org/m", source_url="https://h/m.gguf").id == "org/m"
    assert len(tried) == 2
    assert [path.name for path in registry.root.iterdir()] == ["org"]


def test_processes_that_add_and_remove_never_see_half_a_model(registry: Registry) -> None:
    several = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(registry.root), str(number)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    errors = [one.communicate(timeout=120)[1] for one in several]
    assert [one.returncode for one in several] == [0, 0, 0], errors
    for entry in registry.entries():
        registry.remove(entry.id)
    assert tree(registry.root) == set()
