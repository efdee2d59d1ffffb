"""Downloads from a real server with faults: what arrives is the file, byte for byte, or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.file_server import FileServer, file_server
from support.gguf_draft import string
from support.gguf_maker import llama_draft, make_llama

from nitrolib.errors import (
    Conflict,
    DownloadError,
    InvalidRequest,
    NotFound,
    StorageError,
)
from nitrolib.models import Downloads, DownloadStatus, FetchPolicy, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
LOCAL = {"hosts": ("*",), "allow_private": True, "backoff_s": 0.001, "keep_free_bytes": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_llama(tmp_path_factory.mktemp("source") / "m.gguf").read_bytes()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as found:
        yield found


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def made(registry: Registry) -> Iterator[Callable[..., Downloads]]:
    """Makes Downloads into the registry, closed at the end."""
    several = []

    def make(free_bytes: Any = None, max_parallel: int = 2, **policy: Any) -> Downloads:
        several.append(
            Downloads(
                registry,
                FetchPolicy(**{**LOCAL, **policy}),
                free_bytes=free_bytes,
                max_parallel=max_parallel,
            )
        )
        return several[-1]

    yield make
    for one in several:
        one.close()


def fetch(downloads: Downloads, source: str, **fields: Any) -> DownloadStatus:
    return downloads.wait(downloads.start(source, **fields).id, 60)


def refused(status: DownloadStatus, reason: str) -> str:
    """The message of a download that failed for this reason and cannot go on."""
    assert status.state == "failed"
    assert isinstance(status.error, DownloadError), status.error
    assert status.error.reason == reason
    assert not getattr(status.error, "resumable", False)
    return status.error.message


def left(registry: Registry) -> set[str]:
    return {path.relative_to(registry.root).as_posix() for path in registry.root.rglob("*")}


def held(served: Any, after: int) -> threading.Event:
    """Lets the server wait behind so many bytes of an answer, until the event is set."""
    go = threading.Event()
    served.piece = 16 << 10
    served.before_piece = lambda sent: sent < after or go.wait(60)
    return go


def until(state: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not state():
        assert time.monotonic() < give_up
        time.sleep(0.005)


# ---- whole files ---------------------------------------------------------------------------------


def test_a_file_arrives_with_its_manifest(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/dir/tiny model.gguf", data)
    downloads = made()
    digest = hashlib.sha256(data).hexdigest()
    status = fetch(downloads, url, sha256=digest.upper(), name="Tiny", settings={"ctx_len": "64"})
    assert (status.state, status.bytes, status.total) == ("downloaded", len(data), len(data))
    entry = registry.get("tiny model")
    assert entry.path is not None
    assert entry.path.read_bytes() == data
    assert (entry.name, entry.source_url, entry.manifest.settings) == ("Tiny", url, {"ctx_len": 64})
    assert entry.manifest.sources[0].sha256 == digest
    assert left(registry) == {"tiny model", "tiny model/model.json", "tiny model/tiny model.gguf"}
    again = downloads.start(url)
    assert (again.state, again.bytes) == ("downloaded", len(data))
    assert len(server.requests) == 1


@pytest.mark.parametrize("seed", range(3))
def test_cut_at_twenty_random_points_the_file_is_identical(
    server: FileServer, registry: Registry, made: Any, data: bytes, seed: int
) -> None:
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(1, len(data)), 20))
    steps = [end - start for start, end in zip([0, *cuts], cuts, strict=False)]
    url = server.put("/m.gguf", data, cuts=steps)
    status = fetch(made(), url, sha256=hashlib.sha256(data).hexdigest())
    assert status.state == "downloaded", status.error
    assert registry.get("m").path.read_bytes() == data  # type: ignore[union-attr]
    starts = [headers.get("range") for headers in server.of("/m.gguf")]
    assert len(starts) == 21
    assert starts == [None, *(f"bytes={cut}-" for cut in cuts)]


def test_a_server_without_ranges_is_read_from_the_beginning(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data, ranges=False, cuts=[len(data) // 2, len(data) - 1])
    assert fetch(made(), url).state == "downloaded"
    assert registry.get("m").path.read_bytes() == data  # type: ignore[union-attr]


def test_a_file_that_changes_between_cuts_is_begun_anew(
    server: FileServer, registry: Registry, made: Any, data: bytes, tmp_path: Path
) -> None:
    other = make_llama(tmp_path / "other.gguf", seed=5).read_bytes()
    assert len(other) == len(data)
    url = server.put("/m.gguf", data, cuts=[len(data) // 2])
    served = server.files["/m.gguf"]

    def swap(sent: int) -> None:
        if sent >= len(data) // 4 and served.data is data:
            served.data = other

    served.before_piece = swap
    assert fetch(made(), url).state == "downloaded"
    assert registry.get("m").path.read_bytes() == other  # type: ignore[union-attr]


@pytest.mark.parametrize("validators", [{"etag": None}, {"etag": 'W/"x"'}])
def test_bytes_that_nothing_vouches_for_are_fetched_again(
    server: FileServer, registry: Registry, made: Any, data: bytes, validators: dict[str, Any]
) -> None:
    url = server.put("/m.gguf", data, cuts=[len(data) // 2], **validators)
    assert fetch(made(), url).state == "downloaded"
    assert [one.get("range") for one in server.of("/m.gguf")] == [None, None]
    assert registry.get("m").path.read_bytes() == data  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "validators",
    [{"etag": None, "modified": "Tue, 14 Nov 2023 22:13:20 GMT"}, {"etag": None, "sum": True}],
)
def test_a_date_or_a_known_sum_vouches_for_them(
    server: FileServer, made: Any, data: bytes, validators: dict[str, Any]
) -> None:
    known = hashlib.sha256(data).hexdigest() if validators.pop("sum", False) else None
    url = server.put("/m.gguf", data, cuts=[1000], **validators)
    assert fetch(made(), url, sha256=known).state == "downloaded"
    assert [one.get("range") for one in server.of("/m.gguf")] == [None, "bytes=1000-"]


def test_a_file_of_unknown_length_is_taken_when_it_is_whole(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    assert fetch(made(), server.put("/m.gguf", data, length=False)).state == "downloaded"
    cut = server.put("/cut.gguf", data[:-1000], length=False)
    assert "cut or damaged" in refused(fetch(made(), cut), "source")
    assert left(registry) == {"m", "m/model.json", "m/m.gguf"}


def test_a_busy_server_is_asked_again(server: FileServer, made: Any, data: bytes) -> None:
    url = server.put("/m.gguf", data, statuses=[503, 429, 500])
    assert fetch(made(), url).state == "downloaded"


def test_redirects_are_followed(server: FileServer, made: Any, data: bytes) -> None:
    server.put("/real", data)
    server.put("/b.gguf", redirect="/real")
    url = server.put("/a.gguf", redirect=server.url + "/b.gguf")
    assert fetch(made(), url).state == "downloaded"


def test_a_model_in_parts_arrives_whole(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    names = [f"big-0000{n}-of-00002.gguf" for n in (1, 2)]
    sources = [{"filename": n, "url": server.put(f"/{n}", data, cuts=[5000])} for n in names]
    entry = registry.add("big", sources=sources, source_url=sources[0]["url"])
    downloads = made()
    downloads.start(entry)
    status = downloads.wait("big", 60)
    assert (status.state, status.bytes) == ("downloaded", 2 * len(data))
    assert [path.name for path in registry.get("big").files] == names


def test_the_url_of_a_first_part_means_all_parts(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    first, second = (server.put(f"/big-0000{n}-of-00002.gguf", data) for n in (1, 2))
    downloads = made()
    status = fetch(downloads, first + "?download=true")
    assert (status.id, status.state, status.bytes) == ("big", "downloaded", 2 * len(data))
    assert [one.url for one in registry.get("big").manifest.sources] == [
        f"{first}?download=true", f"{second}?download=true",
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="not its first"):
        downloads.start(second)


# ---- what is refused -----------------------------------------------------------------------------


def test_a_web_page_is_refused_and_leaves_nothing(
    server: FileServer, registry: Registry, made: Any
) -> None:
    page = b"<!doctype html>" + b"x" * 300_000
    downloads = made()
    told = refused(fetch(downloads, server.put("/a.gguf", page, type="text/html")), "source")
    assert "text/html" in told
    told = refused(fetch(downloads, server.put("/b.gguf", page)), "source")
    assert "not a GGUF file" in told
    assert left(registry) == set()


def test_a_model_that_nothing_here_runs_is_refused_before_its_body(
    server: FileServer, registry: Registry, made: Any, tmp_path: Path
) -> None:
    draft = llama_draft()
    draft["general.architecture"] = string("unheard-of")
    path = draft.write(tmp_path / "u.gguf")
    with path.open("ab") as file:
        file.truncate(64 << 20)
    url = server.put("/u.gguf", path.read_bytes())
    served = server.files["/u.gguf"]
    sent: list[int] = []
    served.before_piece = sent.append
    assert "unheard-of" in refused(fetch(made(), url), "source")
    assert max(sent) < 32 << 20  # what lay in the sockets; never the whole of it
    assert left(registry) == set()


def test_a_model_that_goes_as_it_is_asked_for_again_is_fetched(
    server: FileServer,
    made: Any,
    registry: Registry,
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a download that fails in that moment takes it away."""
    url, add = server.put("/m.gguf", data), registry.add
    times = 0

    def add_and_lose(name: str, **fields: Any) -> Any:
        nonlocal times
        times += 1
        entry = add(name, **fields)
        if times == 1:
            registry.remove(name)
        return entry

    monkeypatch.setattr(registry, "add", add_and_lose)
    downloads = made()
    downloads.start(url)
    assert downloads.wait("m", 60).state == "downloaded"
    assert times == 2
    assert registry.get("m").path is not None
    assert left(registry) == {"m", "m/model.json", "m/m.gguf"}


def test_a_wrong_sum_leaves_nothing(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data, cuts=[2000])
    told = refused(fetch(made(), url, sha256="0" * 64), "checksum")
    assert hashlib.sha256(data).hexdigest() in told
    assert left(registry) == set()


def test_a_wrong_size_leaves_nothing(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data)
    entry = registry.add(
        "m", source_url=url, sources=[{"filename": "m.gguf", "url": url, "size": len(data) + 1}]
    )
    downloads = made()
    downloads.start(entry)
    refused(downloads.wait("m", 30), "size")
    assert left(registry) == {"m", "m/model.json"}  # the model was known before
    refused(fetch(made(max_bytes=len(data) - 1), url, id="n"), "size")
    endless = server.put("/e.gguf", data, length=False)
    refused(fetch(made(max_bytes=len(data) - 1), endless), "size")
    assert left(registry) == {"m", "m/model.json"}


def test_a_disk_without_room_is_noticed_before_the_body(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data)
    downloads = made(free_bytes=lambda _folder: len(data) + 99, keep_free_bytes=100)
    status = fetch(downloads, url)
    refused(status, "space")
    assert status.error.free_bytes == len(data) + 99  # type: ignore[union-attr]
    assert left(registry) == set()


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(
    server: FileServer, registry: Registry, made: Any, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nitrolib.models.part import Part

    real = Part.append

    def full(self: Part, piece: bytes) -> None:
        if self.length + len(piece) > 200_000:
            raise_full = OSError(errno.ENOSPC, "No space left on device")
            monkeypatch.setattr(self, "_file", FullFile(self._file, raise_full))
        real(self, piece)

    class FullFile:
        def __init__(self, file: Any, error: OSError) -> None:
            self._file, self._error = file, error

        def write(self, piece: Any) -> int:
            raise self._error

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    monkeypatch.setattr(Part, "append", full)
    refused(fetch(made(), server.put("/m.gguf", data)), "space")
    assert left(registry) == set()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_a_really_full_device_is_a_lack_of_space(tmp_path: Path) -> None:
    from nitrolib.models.part import storage_error

    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
    error = storage_error(caught.value, tmp_path)
    assert isinstance(error, DownloadError)
    assert error.reason == "space"
    other = storage_error(OSError(errno.EIO, "Input/output error"), tmp_path)
    assert isinstance(other, StorageError)


@pytest.mark.parametrize("status", [404, 403, 401, 400, 304])
def test_a_refusal_of_the_server_is_one_of_the_source(
    server: FileServer, registry: Registry, made: Any, data: bytes, status: int
) -> None:
    url = server.put("/m.gguf", data, statuses=[status])
    assert str(status) in refused(fetch(made(), url), "source")
    assert left(registry) == set()
    assert len(server.requests) == 1


def test_an_encoding_that_was_not_asked_for_is_refused(
    server: FileServer, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data, headers={"content-encoding": "gzip"})
    assert "encoding" in refused(fetch(made(), url), "source")
    assert server.of("/m.gguf")[0]["accept-encoding"] == "identity"


def test_redirects_end(server: FileServer, made: Any) -> None:
    url = server.put("/loop.gguf", redirect="/loop.gguf")
    assert "redirects" in refused(fetch(made(max_redirects=3), url), "source")
    assert len(server.requests) == 4
    url = server.put("/nowhere.gguf", redirect="")
    assert refused(fetch(made(), url), "source")


# ---- where a fetch may go ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd.gguf", "ftp://h/m.gguf", "gopher://h/m", "m", "http:///m.gguf", "//h/m",
     "data:,x", "http://h:99999/m.gguf", "http://[::1/m.gguf"],
)  # fmt: skip
def test_only_http_urls_are_fetched(made: Any, registry: Registry, url: str) -> None:
    with pytest.raises((InvalidRequest, DownloadError)):
        made().start(url)
    assert not registry.root.exists()


def test_a_url_with_a_password_is_refused(made: Any) -> None:
    with pytest.raises(DownloadError, match="password"):
        made().start("http://user:secret@127.0.0.1/m.gguf")


def test_only_allowed_hosts_are_asked(server: FileServer, made: Any, data: bytes) -> None:
    url = server.put("/m.gguf", data)
    with pytest.raises(DownloadError, match="none of the hosts") as caught:
        made(hosts=("huggingface.co", "*.hf.co")).start(url)
    assert caught.value.reason == "source"
    assert server.requests == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "2130706433", "0x7f.1"],
)
def test_no_private_address_is_connected_to(
    server: FileServer, registry: Registry, made: Any, data: bytes, host: str
) -> None:
    """Also where it hides behind a name or an odd spelling."""
    server.put("/m.gguf", data)
    status = fetch(made(allow_private=False), f"http://{host}:{server.port}/m.gguf")
    assert refused(status, "source")
    assert server.requests == []
    assert left(registry) == set()


def test_a_redirect_to_a_private_address_is_refused(
    server: FileServer, registry: Registry, made: Any, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first server is let through as if it were public; where it leads to is not."""
    from nitrolib.models import policy

    with file_server() as inner:
        secret = inner.put("/secret.gguf", data)
        url = server.put("/m.gguf", redirect=secret.replace("127.0.0.1", "localhost"))
        real = policy.FetchPolicy.check_address

        def check(self: FetchPolicy, address: str, host: str) -> None:
            if host != "127.0.0.1":
                real(self, address, host)

        monkeypatch.setattr(policy.FetchPolicy, "check_address", check)
        refused(fetch(made(allow_private=False), url), "source")
        assert len(server.requests) == 1
        assert inner.requests == []
    assert left(registry) == set()


def test_a_redirect_to_another_host_is_refused(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    server.put("/real.gguf", data)
    url = server.put("/m.gguf", redirect=f"http://localhost:{server.port}/real.gguf")
    told = refused(fetch(made(hosts=("127.0.0.1",)), url), "source")
    assert "localhost" in told
    assert len(server.requests) == 1
    assert left(registry) == set()


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: FileServer, data: bytes
) -> None:
    """A name that changes its address between the look and the connection gains nothing."""
    import httpcore

    from nitrolib.models.connection import Guard

    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    asked = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in next(answers)]

    guard = Guard(
        FetchPolicy(hosts=("*",), connect_timeout_s=0.2), time.monotonic() + 60, resolve=resolve
    )
    with pytest.raises((httpcore.ConnectError, httpcore.ConnectTimeout)):
        guard.connect_tcp("rebinding.example", server.port, timeout=0.2)
    with pytest.raises(DownloadError):
        guard.connect_tcp("rebinding.example", server.port, timeout=0.2)
    assert asked == ["rebinding.example"] * 2  # once for each connection, and never behind our back
    assert server.requests == []


def test_a_name_with_one_private_address_is_refused() -> None:
    from nitrolib.models.connection import Guard

    both = [(2, 1, 6, "", ("8.8.8.8", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    guard = Guard(FetchPolicy(hosts=("*",)), time.monotonic() + 60, resolve=lambda *_, **__: both)
    with pytest.raises(DownloadError, match="public internet"):
        guard.connect_tcp("h", 80)


# ---- going on later ------------------------------------------------------------------------------


def test_a_network_that_fails_for_too_long_leaves_a_part_to_go_on_with(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data, cuts=[300_000, 0, 0, 0])
    status = fetch(made(retries=2), url)
    assert status.state == "failed"
    assert isinstance(status.error, DownloadError)
    assert (status.error.reason, status.error.resumable) == ("network", True)  # type: ignore[attr-defined]
    assert left(registry) == {"m", "m/model.json", "m/m.gguf.part", "m/m.gguf.part.json"}
    assert not registry.get("m").present
    server.files["/m.gguf"].cuts.clear()
    assert fetch(made(), url).state == "downloaded"
    assert server.of("/m.gguf")[-1]["range"] == "bytes=300000-"
    assert registry.get("m").path.read_bytes() == data  # type: ignore[union-attr]
    assert left(registry) == {"m", "m/model.json", "m/m.gguf"}


def test_a_server_that_is_not_there_leaves_nothing(registry: Registry, made: Any) -> None:
    with file_server() as gone:
        url = gone.url + "/m.gguf"
    status = fetch(made(), url)
    assert isinstance(status.error, DownloadError)
    assert (status.error.reason, status.error.resumable) == ("network", False)
    assert left(registry) == set()


def test_what_was_stopped_goes_on_in_another_object(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data)
    go = held(server.files["/m.gguf"], 200_000)
    downloads = made()
    downloads.start(url, id="org/m", sha256=hashlib.sha256(data).hexdigest())
    until(lambda: downloads.status("org/m").bytes > 100_000)
    downloads.close()
    go.set()
    stopped = downloads.status("org/m")
    assert (stopped.state, stopped.error) == ("stopped", None)
    with pytest.raises(Conflict):
        downloads.start(url, id="other")
    later = made()
    assert [status.id for status in later.resume()] == ["org/m"]
    assert later.wait("org/m", 60).state == "downloaded"
    assert registry.get("org/m").path.read_bytes() == data  # type: ignore[union-attr]
    assert server.of("/m.gguf")[-1]["range"] != "bytes=0-"
    assert made().resume() == ()


PROCESS = """
import sys
from nitrolib.models import Downloads, FetchPolicy, Registry
policy = FetchPolicy(hosts=("*",), allow_private=True, keep_free_bytes=0)
downloads = Downloads(Registry(sys.argv[1]), policy)
downloads.start(sys.argv[2], id="m")
print(downloads.wait("m").state, flush=True)
"""


def test_what_a_killed_process_began_goes_on(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data)
    go = held(server.files["/m.gguf"], 300_000)
    arguments = [sys.executable, "-c", PROCESS, str(registry.root), url]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    part = registry.root / "m" / "m.gguf.part"
    until(lambda: part.exists() and part.stat().st_size >= 200_000)
    with pytest.raises(Conflict, match="another process"):
        made().start(url, id="m")
    process.kill()
    process.communicate()
    go.set()
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "downloaded\n", done.stderr
    assert registry.get("m").path.read_bytes() == data  # type: ignore[union-attr]
    begun = int(server.of("/m.gguf")[-1]["range"].removeprefix("bytes=").rstrip("-"))
    assert begun >= 200_000
    assert left(registry) == {"m", "m/model.json", "m/m.gguf"}


def test_a_part_of_another_source_is_not_gone_on_with(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data)
    entry = registry.add("m", source_url=url)
    (entry.folder / "m.gguf.part").write_bytes(b"x" * 1000)
    (entry.folder / "m.gguf.part.json").write_text(json.dumps({"url": "http://other/m.gguf"}))
    assert fetch(made(), url).state == "downloaded"
    assert registry.get("m").path.read_bytes() == data  # type: ignore[union-attr]


@pytest.mark.parametrize("beside", ["{", "[]", "null", '{"url": 7}', '{"url": "u", "total": "x"}'])
def test_a_broken_sidecar_is_as_none(
    server: FileServer, registry: Registry, made: Any, data: bytes, beside: str
) -> None:
    url = server.put("/m.gguf", data)
    entry = registry.add("m", source_url=url)
    (entry.folder / "m.gguf.part").write_bytes(data[:1000])
    (entry.folder / "m.gguf.part.json").write_text(beside)
    assert fetch(made(), url).state == "downloaded"
    assert "range" not in server.of("/m.gguf")[0]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_part_that_is_a_link_is_not_written_through(
    server: FileServer, registry: Registry, made: Any, data: bytes, tmp_path: Path
) -> None:
    url = server.put("/m.gguf", data)
    entry = registry.add("m", source_url=url)
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (entry.folder / "m.gguf.part").symlink_to(secret)
    assert fetch(made(), url).state == "failed"
    assert secret.read_text() == "mine"


# ---- ending, waiting, several --------------------------------------------------------------------


def test_cancel_ends_at_once_and_leaves_nothing(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    """The server is silent: the download would wait for it for a minute."""
    url = server.put("/m.gguf", data)
    go = held(server.files["/m.gguf"], 100_000)
    downloads = made(read_timeout_s=600)
    downloads.start(url)
    until(lambda: downloads.status("m").bytes > 50_000)
    began = time.monotonic()
    assert downloads.cancel("m")
    assert time.monotonic() - began < 50
    go.set()
    assert downloads.status("m").state == "cancelled"
    assert left(registry) == set()
    assert not downloads.cancel("m")
    assert not downloads.cancel("nobody")


def test_cancel_removes_what_a_stopped_download_left(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data, cuts=[300_000, 0, 0])
    assert fetch(made(retries=1), url).state == "failed"
    assert made().cancel("m")
    assert left(registry) == set()


def test_a_few_run_at_a_time_and_the_others_wait(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    downloads = made(max_parallel=2)
    gates = []
    for name in "abcd":
        url = server.put(f"/{name}.gguf", data)
        gates.append(held(server.files[f"/{name}.gguf"], 100_000))
        downloads.start(url)
    until(lambda: len(server.requests) == 2)
    states = [status.state for status in downloads.statuses()]
    assert states == ["downloading", "downloading", "queued", "queued"]
    assert downloads.cancel("d")
    assert downloads.wait("a", 0.01).state == "downloading"
    for gate in gates:
        gate.set()
    assert [downloads.wait(name, 60).state for name in "abc"] == ["downloaded"] * 3
    assert sorted(entry.id for entry in registry.entries()) == ["a", "b", "c"]


def test_a_download_under_way_is_not_begun_twice(
    server: FileServer, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data)
    go = held(server.files["/m.gguf"], 100_000)
    downloads = made()
    assert downloads.start(url).active
    assert downloads.start(url).active
    with pytest.raises(Conflict):
        downloads.start(url.replace("m.gguf", "other.gguf"), id="m")
    go.set()
    downloads.wait("m", 60)
    assert len(server.requests) == 1
    with pytest.raises(NotFound):
        downloads.wait("nobody")


def test_a_server_that_is_too_slow_is_given_up(
    server: FileServer, registry: Registry, made: Any, data: bytes
) -> None:
    url = server.put("/m.gguf", data, cuts=[100_000])
    assert fetch(made(retries=0), url).state == "failed"
    go = held(server.files["/m.gguf"], 0)
    status = fetch(made(read_timeout_s=0.2, retries=1), url)
    assert status.error.reason == "network"  # type: ignore[union-attr]
    status = fetch(made(max_time_s=0.3), url)
    assert (status.error.reason, status.error.resumable) == ("time", True)  # type: ignore[union-attr]
    go.set()
    assert (registry.root / "m" / "m.gguf.part").exists()


def test_progress_grows_and_has_a_rate(server: FileServer, made: Any, data: bytes) -> None:
    url = server.put("/m.gguf", data)
    served = server.files["/m.gguf"]
    served.piece = 32 << 10
    pieces = threading.Semaphore(0)
    served.before_piece = lambda _sent: pieces.acquire(timeout=60)
    downloads = made()
    downloads.start(url)
    seen = []
    for sent in range(0, len(data), served.piece):
        until(lambda sent=sent: downloads.status("m").bytes == sent)  # type: ignore[misc]
        seen.append(downloads.status("m"))
        pieces.release()
    assert downloads.wait("m", 60).state == "downloaded"
    assert [one.bytes for one in seen] == sorted(one.bytes for one in seen)
    assert any(one.rate > 0 and one.seconds_left is not None for one in seen)
    assert {one.total for one in seen} <= {None, len(data)}


@pytest.mark.parametrize("sha256", ["x" * 64, "ab", "g" * 64])
def test_a_sum_must_look_like_one(made: Any, sha256: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        made().start("http://127.0.0.1/m.gguf", sha256=sha256)
    assert caught.value.field == "sha256"
