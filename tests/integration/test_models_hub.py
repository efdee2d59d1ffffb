"""The Hugging Face Hub through huggingface_hub, played by a server of the test's own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from support.file_server import FileServer, file_server
from support.gguf_maker import make_llama

from nitrolib.errors import DownloadError, InvalidRequest
from nitrolib.models import Downloads, FetchPolicy, Registry
from nitrolib.models.source import HubSource, UrlSource, parse_source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_llama(tmp_path_factory.mktemp("hub") / "m.gguf").read_bytes()


@pytest.fixture
def hub() -> Iterator[FileServer]:
    with file_server() as found:
        yield found


@pytest.fixture
def downloads(hub: FileServer, tmp_path: Path) -> Iterator[Downloads]:
    policy = FetchPolicy(
        hosts=("127.0.0.1",), allow_private=True, keep_free_bytes=0, endpoint=hub.url, backoff_s=0
    )
    with Downloads(Registry(tmp_path / "models"), policy) as made:
        yield made


def repository(hub: FileServer, files: dict[str, bytes], name: str = "org/repo") -> None:
    """Serve a repository as the Hub does: what it holds, and each file at its commit."""
    siblings = []
    for path, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        lfs = {"size": len(content), "sha256": digest, "pointerSize": 134}
        siblings.append({"rfilename": path, "size": len(content), "lfs": lfs, "blobId": "b"})
        hub.put(f"/{name}/resolve/{COMMIT}/{path}", content)
    told = {"_id": "1", "id": name, "sha": COMMIT, "siblings": siblings, "tags": []}
    for revision in ("main", "v1"):
        hub.put_json(f"/api/models/{name}/revision/{revision}", told)


def taken(downloads: Downloads, source: str, **fields: Any) -> str:
    """The file that a source came to."""
    status = downloads.wait(downloads.start(source, **fields).id, 60)
    assert status.state == "downloaded", status.error
    entry = downloads.registry.get(status.id)
    downloads.registry.remove(status.id)
    return entry.manifest.sources[0].filename


def test_a_file_of_a_repository_comes_with_its_sum_at_a_fixed_commit(
    hub: FileServer, downloads: Downloads, data: bytes
) -> None:
    repository(hub, {"m.Q8_0.gguf": data, "README.md": b"hello"})
    status = downloads.start("hf://org/repo/m.Q8_0.gguf")
    assert downloads.wait(status.id, 60).state == "downloaded"
    entry = downloads.registry.get("m.Q8_0")
    (file,) = entry.manifest.sources
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert file.size == len(data)
    assert entry.source_url == f"{hub.url}/org/repo/resolve/{COMMIT}/m.Q8_0.gguf"
    assert entry.path is not None
    assert entry.path.read_bytes() == data


def test_a_sum_that_the_hub_tells_is_checked(
    hub: FileServer, downloads: Downloads, data: bytes
) -> None:
    repository(hub, {"m.gguf": data})
    hub.files[f"/org/repo/resolve/{COMMIT}/m.gguf"].data = data[:-1] + bytes([data[-1] ^ 1])
    status = downloads.wait(downloads.start("org/repo").id, 60)
    assert isinstance(status.error, DownloadError)
    assert status.error.reason == "checksum"
    assert downloads.registry.entries() == ()


def test_the_usual_quantization_is_taken_where_nobody_says(
    hub: FileServer, downloads: Downloads, data: bytes
) -> None:
    names = ["m.Q2_K.gguf", "m.Q4_K_M.gguf", "m.Q8_0.gguf", "mmproj-m.gguf"]
    repository(hub, dict.fromkeys(names, data))
    assert taken(downloads, "org/repo") == "m.Q4_K_M.gguf"
    assert taken(downloads, "org/repo:q2_k") == "m.Q2_K.gguf"
    assert taken(downloads, "hf://org/repo@v1:Q8_0") == "m.Q8_0.gguf"
    assert taken(downloads, f"{hub.url}/org/repo/blob/main/m.Q2_K.gguf") == "m.Q2_K.gguf"
    assert taken(downloads, "hf.co/org/repo/m.Q8_0.gguf", id="mine") == "m.Q8_0.gguf"


def test_a_model_in_parts_comes_whole(hub: FileServer, downloads: Downloads, data: bytes) -> None:
    names = [f"Q4_K_M/m-Q4_K_M-0000{n}-of-00002.gguf" for n in (1, 2)]
    repository(hub, dict.fromkeys(names, data))
    status = downloads.wait(downloads.start("org/repo:Q4_K_M").id, 60)
    assert (status.id, status.state) == ("m-Q4_K_M", "downloaded")
    files = downloads.registry.get("m-Q4_K_M").files
    assert [path.name for path in files] == [name.split("/")[1] for name in names]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("org/repo/none.gguf", "no file 'none.gguf'"),
        ("org/repo:Q6_K", "name one of"),
        ("org/several", "several files: name one of"),
        ("org/none", "no org/none at main"),
        ("org/repo@gone", "at gone"),
        ("org/text", "no GGUF file"),
        ("org/half:Q8_0", "is missing"),
    ],
)
def test_what_is_not_there_is_told(
    hub: FileServer, downloads: Downloads, data: bytes, source: str, told: str
) -> None:
    repository(hub, {"m.Q8_0.gguf": data})
    repository(hub, {"a.gguf": data, "b.gguf": data}, "org/several")
    repository(hub, {"README.md": b"hello"}, "org/text")
    repository(hub, {"m-Q8_0-00001-of-00002.gguf": data}, "org/half")
    with pytest.raises(DownloadError, match=told) as caught:
        downloads.start(source)
    assert caught.value.reason == "source"
    assert downloads.registry.entries() == ()


def test_a_hub_that_cannot_be_reached_is_a_failure_of_the_network(tmp_path: Path) -> None:
    with file_server() as gone:
        endpoint = gone.url
    policy = FetchPolicy(hosts=("*",), allow_private=True, endpoint=endpoint)
    with Downloads(Registry(tmp_path), policy) as downloads:
        with pytest.raises(DownloadError) as caught:
            downloads.start("org/repo")
        assert caught.value.reason == "network"


def test_the_token_goes_to_the_hub_and_to_nobody_else(
    hub: FileServer, downloads: Downloads, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repository(hub, {"m.gguf": data})
    with file_server() as store:  # where the Hub sends those who ask for a large file
        away = store.put("/blob", data)
        hub.files[f"/org/repo/resolve/{COMMIT}/m.gguf"].redirect = away
        assert taken(downloads, "org/repo") == "m.gguf"
        assert taken(downloads, store.put("/x.gguf", data)) == "x.gguf"
        asked = hub.of(f"/org/repo/resolve/{COMMIT}/m.gguf")
        assert asked[0]["authorization"] == "Bearer hf_secret"
        assert store.of("/blob")
        assert all(
            "authorization" not in one for path in ("/blob", "/x.gguf") for one in store.of(path)
        )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("org/repo", HubSource("org/repo")),
        ("org/repo:Q4_K_M", HubSource("org/repo", quant="Q4_K_M")),
        ("hf://org/re.po-1/dir/m.gguf", HubSource("org/re.po-1", file="dir/m.gguf")),
        ("hf://org/repo@v1.0/m.gguf", HubSource("org/repo", file="m.gguf", revision="v1.0")),
        ("huggingface.co/org/repo", HubSource("org/repo")),
        ("https://huggingface.co/org/repo", HubSource("org/repo")),
        (
            "https://huggingface.co/org/repo/resolve/main/a%20b.gguf?download=true",
            HubSource("org/repo", file="a b.gguf"),
        ),
        ("https://h/a/b/m.gguf?x=1", UrlSource("https://h/a/b/m.gguf?x=1", "m.gguf")),
    ],
)
def test_sources_are_understood_as_people_write_them(text: str, meant: object) -> None:
    assert parse_source(text) == meant


@pytest.mark.parametrize(
    "text", ["", "m", "a/b/../c", "hf://a/b/..", "a b/c", "../x", "/abs/m.gguf", "https://h/",
             "a/b:", "org/repo@", "http://[x/m.gguf", "hf://a//m.gguf", "C:\\m.gguf"],
)  # fmt: skip
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_source(text)
    assert caught.value.field == "source"
    assert "ORG/REPO" in (caught.value.allowed or "")
