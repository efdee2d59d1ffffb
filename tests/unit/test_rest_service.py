"""The state of a server: whose model a name is, what is opened when, and what is given back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.file_server import file_server
from support.gguf_maker import make_llama
from support.rest_client import Rest

from nitrolib.adapters.rest.service import Service
from nitrolib.config import Settings
from nitrolib.errors import Forbidden, ModelNotFound, ModelNotLoaded, StorageError

if TYPE_CHECKING:
    from pathlib import Path


def service(folder: Path, **settings: Any) -> Service:
    """Of a server with no model, that keeps everything in *folder*."""
    options = {"data_dir": str(folder), "no_model": True, "threads": 1, **settings}
    return Service.open(None, Settings(**options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder whose registry has the model tiny."""
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    make_llama(tmp_path / "models" / "tiny" / "tiny.gguf")
    return tmp_path


# ---- models --------------------------------------------------------------------------------------


def test_a_name_is_unknown_or_not_loaded_or_a_model(folder: Path) -> None:
    here = service(folder)
    with pytest.raises(ModelNotLoaded):
        here.use()
    with pytest.raises(ModelNotFound):
        here.use("nobody")
    with pytest.raises(ModelNotLoaded, match="'tiny' is not loaded"):
        here.use("tiny")
    with here.use("tiny", start=True) as lease:
        assert (lease.id, lease.seat.leases) == ("tiny", 1)
        assert lease.entry is not None
        assert lease.entry.id == "tiny"
        assert lease.status.path.endswith("tiny.gguf")
    with here.use("tiny") as again, here.use() as current:
        assert again.seat is current.seat
    assert [seat.leases for seat in here.pool.seats()] == [0]
    assert here.stop("tiny")
    assert not here.stop("tiny")
    here.close()


def test_overrides_of_a_start_go_before_the_manifest(folder: Path) -> None:
    here = service(folder)
    entry = here.registry.get("tiny")
    with here.start(entry, {"ctx_len": 64, "n_parallel": 2}) as lease:
        assert (lease.status.n_ctx, lease.status.n_parallel) == (32, 2)
    here.close()


def test_a_lease_that_cannot_be_made_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from nitrolib.adapters.rest.profile import Profile

    rest = Rest()
    here: Service = rest.app.extensions["nitrolib"]

    def unloaded(*_: Any) -> Any:
        raise ModelNotLoaded

    monkeypatch.setattr(Profile, "resolved", unloaded)
    with pytest.raises(ModelNotLoaded):
        here.use()
    assert [seat.leases for seat in here.pool.seats()] == [0]


def test_closing_ends_what_is_its_own(folder: Path) -> None:
    here = service(folder)
    engine = here.use("tiny", start=True).engine
    here.close()
    assert engine.status().model is None
    rest = Rest()
    rest.app.extensions["nitrolib"].close()
    assert rest.engine.model is not None  # the caller's
    assert not rest.engine.closed


# ---- storage -------------------------------------------------------------------------------------


def test_nothing_is_written_before_something_is_kept(tmp_path: Path) -> None:
    data = tmp_path / "data"
    here = service(data)
    assert not data.exists()
    thread = here.store.threads.create(title="A chat")
    assert (data / "nitro.db").is_file()
    here.close()
    again = service(data)
    assert again.store.threads.get(thread.id).title == "A chat"
    again.close()


@pytest.mark.parametrize("name", ["with space", "50%#?&", "é"])
def test_a_data_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    here = service(tmp_path / name)
    here.store.threads.create(title="A chat")
    here.close()
    assert (tmp_path / name / "nitro.db").is_file()


def test_a_data_folder_that_cannot_be_made_is_a_failing_storage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    here = service(tmp_path / "file" / "data")
    with pytest.raises(StorageError):
        _ = here.store
    here.close()


def test_a_database_may_be_elsewhere(tmp_path: Path) -> None:
    here = service(tmp_path / "data", database_url=f"sqlite:///{tmp_path}/own.db")
    here.store.threads.create(title="A chat")
    here.close()
    assert (tmp_path / "own.db").is_file()
    assert not (tmp_path / "data").exists()


# ---- downloads -----------------------------------------------------------------------------------


def test_a_server_may_refuse_to_download(tmp_path: Path) -> None:
    here = service(tmp_path, downloads=False)
    with pytest.raises(Forbidden):
        here.downloads.start("https://huggingface.co/some/model.gguf")
    assert here.downloads.status("some") is None
    here.close()


def test_a_download_that_was_stopped_goes_on_when_the_server_starts_again(tmp_path: Path) -> None:
    # Large enough that some of it is on the disk when half of it was sent.
    data = make_llama(tmp_path / "model.gguf", n_vocab=32000).read_bytes()
    folder = tmp_path / "data"
    options = {"download_hosts": ("127.0.0.1",), "download_private": True}
    halfway, stopped = threading.Event(), threading.Event()

    def hold(sent: int) -> None:
        if sent > len(data) // 2 and not stopped.is_set():
            halfway.set()
            stopped.wait(60)

    with file_server() as files:
        url = files.put("/model.gguf", data, piece=65536, before_piece=hold)
        first = service(folder, **options)
        first.downloads.start(url, id="fetched")
        assert halfway.wait(60)
        first.close()
        stopped.set()
        assert not (folder / "models" / "fetched" / "model.gguf").exists()
        second = service(folder, **options)
        assert second.downloads.wait("fetched", 60).state == "downloaded"
        second.close()
        assert any("range" in map(str.lower, headers) for headers in files.of("/model.gguf"))
    assert (folder / "models" / "fetched" / "model.gguf").read_bytes() == data
