"""`nitro pull` and `nitro models` as real processes, against a real server."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.file_server import FileServer, file_server
from support.gguf_maker import make_llama
from support.nitro_process import Terminal, nitro, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("pull") / "tiny.gguf")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def pull(folder: Path, *more: str) -> list[str]:
    return ["pull", "--allow-private", "--models-dir", str(folder), *more]


def left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_pulled_model_runs_by_its_id(server: FileServer, folder: Path, model: Path) -> None:
    url = server.put("/tiny.gguf", model.read_bytes())
    done = nitro(*pull(folder, url, "--id", "org/tiny"))
    assert (done.returncode, done.stdout) == (0, "org/tiny\n"), done.stderr
    assert "100%" in done.stderr
    assert "\r" not in done.stderr
    listed = nitro("models", "--models-dir", folder)
    assert listed.returncode == 0
    assert listed.stdout.splitlines()[1].split()[:2] == ["org/tiny", "557.5"]
    words = ["--threads", "1", "--ngl", "0", "--greedy", "--max-tokens", "4", "Hello"]
    by_id = nitro("run", "--model", "org/tiny", *words, NITRO_MODELS_DIR=str(folder))
    by_path = nitro("run", "--model", model, *words)
    assert (by_id.returncode, by_id.stderr) == (0, "")
    assert by_id.stdout == by_path.stdout
    again = nitro(*pull(folder, url, "--id", "org/tiny"))
    assert (again.returncode, again.stdout) == (0, "org/tiny\n")
    assert len(server.requests) == 1


def test_json_is_an_event_a_line_with_the_outcome_last(
    server: FileServer, folder: Path, model: Path
) -> None:
    data = model.read_bytes()
    done = nitro(*pull(folder, server.put("/tiny.gguf", data), "--json"))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert {event["event"] for event in events[:-1]} <= {"progress"}
    assert events[-1]["event"] == "downloaded"
    assert (events[-1]["id"], events[-1]["bytes"]) == ("tiny", len(data))
    failed = nitro(*pull(folder, server.url + "/none.gguf", "--json"))
    last = json.loads(failed.stdout.splitlines()[-1])
    assert failed.returncode == 1
    assert (last["event"], last["error"]["reason"]) == ("failed", "source")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["{url}/page.gguf"], 1, "not a GGUF file"),
        (["{url}/none.gguf"], 1, "404"),
        (["{url}/tiny.gguf", "--sha256", "0" * 64], 1, "SHA-256"),
        (["{url}/tiny.gguf", "--sha256", "zz"], 2, "hexadecimal"),
        (["{url}/tiny.gguf", "--id", "../x"], 2, "id"),
        (["not a source"], 2, "no source"),
        (["file:///etc/passwd"], 2, "no source"),
        ([], 2, "SOURCE"),
    ],
)
def test_failures_are_one_line_and_leave_nothing(
    server: FileServer, folder: Path, model: Path, words: list[str], status: int, told: str
) -> None:
    server.put("/tiny.gguf", model.read_bytes())
    server.put("/page.gguf", b"<html>" * 1000)
    done = nitro(*pull(folder, *(word.format(url=server.url) for word in words)))
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr.splitlines()[-2 if not words else -1]
    assert left(folder) == set()


def test_private_addresses_are_for_those_who_ask(server: FileServer, folder: Path) -> None:
    done = nitro("pull", "--models-dir", folder, server.url + "/tiny.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert "public internet" in done.stderr
    assert server.requests == []


@posix
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_what_was_stopped_goes_on(
    server: FileServer, folder: Path, model: Path, number: int, status: int
) -> None:
    data = model.read_bytes()
    url = server.put("/tiny.gguf", data, piece=16 << 10)
    go = threading.Event()
    server.files["/tiny.gguf"].before_piece = lambda sent: sent < 300_000 or go.wait(60)
    words = pull(folder, url, "--sha256", hashlib.sha256(data).hexdigest())
    part = folder / "tiny" / "tiny.gguf.part"
    with running(*words) as child:
        give_up = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 200_000):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    go.set()
    assert child.returncode == status
    assert b"goes on" in err
    assert left(folder) == {
        "tiny", "tiny/model.json", "tiny/tiny.gguf.part", "tiny/tiny.gguf.part.json",
    }  # fmt: skip
    done = nitro(*pull(folder, "tiny"))  # by its id, too
    assert (done.returncode, done.stdout) == (0, "tiny\n"), done.stderr
    assert (folder / "tiny" / "tiny.gguf").read_bytes() == data
    assert server.of("/tiny.gguf")[-1]["range"] != "bytes=0-"


@posix
def test_a_terminal_gets_a_bar(server: FileServer, folder: Path, model: Path) -> None:
    url = server.put("/tiny.gguf", model.read_bytes(), piece=32 << 10)
    go = threading.Event()
    server.files["/tiny.gguf"].before_piece = lambda sent: sent < 300_000 or go.wait(60)
    with Terminal(pull(folder, url)) as terminal:
        terminal.wait_for("#.")
        go.set()
        terminal.wait_for("100% ###")
        terminal.wait_for("tiny\r\n")
        assert terminal.status() == 0


def test_models_adds_lists_and_removes(folder: Path, model: Path) -> None:
    def models(*words: str | Path) -> tuple[int, str, str]:
        done = nitro("models", "--models-dir", folder, *words)
        return done.returncode, done.stdout, done.stderr

    assert models()[:2] == (0, "")
    assert models("add", model) == (0, "tiny\n", "")
    assert models("add", model, "--id", "org/tiny")[1] == "org/tiny\n"
    (folder / "bad").mkdir()
    (folder / "bad" / "model.json").write_text("{")
    status, out, err = models("list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["ID", "org/tiny", "tiny"]
    assert str(model) in out
    assert err.count("\n") == 1
    assert "warning: bad: model.json" in err
    told = json.loads(models("--json")[1])
    assert [one["id"] for one in told["models"]] == ["org/tiny", "tiny"]
    assert told["models"][0]["in_place"]
    assert {*told["problems"]} == {"bad"}
    status, out, err = models("rm", "tiny", "nobody", "bad")
    assert (status, out) == (1, "")
    assert "'nobody'" in err
    assert model.exists()
    assert left(folder) == {"org", "org/tiny", "org/tiny/model.json"}
    for wrong in (["rm"], ["add"], ["list", "x"], ["burn"], ["rm", "../x"]):
        assert models(*wrong)[0] in (1, 2), wrong
    assert models("add", folder / "none.gguf")[0] == 1
