"""`nitro serve`, `nitro bench` and `nitro doctor` as real processes."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.nitro_process import nitro, running

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

each = pytest.mark.usefixtures("each_backend")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("serve") / "tiny.gguf")


@contextlib.contextmanager
def serving(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that answers, and its address."""
    with running("serve", "--port", "0", "--threads", "1", "--log-level", "error", *words) as child:
        assert child.stdout is not None
        line = child.stdout.readline().decode()
        assert line.startswith("nitro: serving "), (line, child.poll())
        url = line.split(" at ")[1].split()[0]
        _wait_until_it_answers(url, child)
        yield child, url


def _wait_until_it_answers(url: str, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        assert child.poll() is None, "the server ended"
        with contextlib.suppress(OSError):
            assert get(f"{url}/healthz")["message"]
            return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")


def get(url: str, body: Any = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


@each
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_and_a_signal_ends_it_quickly_with_status_0(model: Path, number: int) -> None:
    with serving("--model", str(model)) as (child, url):
        answer = get(f"{url}/v1/chat/completions", CHAT)
        assert answer["usage"]["completion_tokens"] <= 4
        assert get(f"{url}/inferences/llamacpp/modelstatus")["model_data"]["model"] == str(model)
        started = time.monotonic()
        child.send_signal(number)
        assert child.wait(60) == 0
        assert time.monotonic() - started < 25  # gunicorn waits 30 s for what does not end


@each
def test_without_a_model_chat_is_a_409(model: Path) -> None:
    with serving("--no-model") as (_, url):
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{url}/v1/chat/completions", CHAT)
        assert caught.value.code == 409
        caught.value.close()
        loaded = get(f"{url}/inferences/llamacpp/loadmodel", {"llama_model_path": str(model)})
        assert loaded["message"] == "Model loaded successfully"


@each
def test_the_flags_reach_the_server(model: Path) -> None:
    words = ["--model", str(model), "--ctx-len", "128", "--n-parallel", "2", "--api-key", "k3y"]
    with serving(*words) as (_, url):
        status = f"{url}/inferences/llamacpp/modelstatus"
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(status)
        assert caught.value.code == 401
        caught.value.close()
        told = get(status, Authorization="Bearer k3y")["model_data"]
        assert told["n_ctx"] == 64


def test_a_second_server_on_the_port_is_told_so_at_once(model: Path) -> None:
    with serving("--no-model") as (_, url):
        port = url.rsplit(":", 1)[1]
        done = nitro("serve", "--no-model", "--port", port)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"port {port} on 127.0.0.1 is taken" in done.stderr


@each
def test_the_bundled_model_gives_way_to_the_first_that_a_client_loads(model: Path) -> None:
    with serving() as (_, url):
        assert get(f"{url}/v1/chat/completions", CHAT)["choices"][0]["message"]["content"]
        load, body = f"{url}/inferences/llamacpp/loadmodel", {"llama_model_path": str(model)}
        assert get(load, body)["message"] == "Model loaded successfully"
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(load, body)
        assert caught.value.code == 409
        caught.value.close()


# bench --------------------------------------------------------------------------------------------


@each
def test_bench_measures_what_it_says(model: Path) -> None:
    words = ["--model", model, "--threads", "1", "--ngl", "0", "--prompt-tokens", "40"]
    done = nitro("bench", *words, "--tokens", "10", "--repeat", "2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["prompt_tokens"], told["tokens"], told["repeat"]) == (40, 10, 2)
    (only,) = told["results"]
    assert (only["concurrency"], only["ratio"], len(only["answers"])) == (1, 1.0, 2)
    assert only["backend"] == told["models"][0]["backend"]
    for answer in only["answers"]:
        assert (answer["prompt_tokens"], answer["completion_tokens"]) == (40, 10)
        assert answer["first_token_s"] >= answer["prefill_s"] > 0
    for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "total_tokens_per_s"):
        figures = only[name]
        assert 0 < figures["min"] <= figures["median"] <= figures["max"]


@each
def test_bench_with_slots_runs_answers_side_by_side(model: Path) -> None:
    words = ["--model", model, "--threads", "1", "--ngl", "0", "--n-parallel", "2"]
    done = nitro("bench", *words, "--prompt-tokens", "20", "--tokens", "5", "--repeat", "1")
    assert done.returncode == 0, done.stderr
    assert ", 2 at once\n" in done.stdout
    assert "decode, tokens/s" in done.stdout


def test_bench_compares_backends_at_every_concurrency_and_draws_them(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp")
    picture = tmp_path / "bench.png"
    words = ["--model", model, "--threads", "1", "--ngl", "0", "--repeat", "1", "--tokens", "4"]
    words += ["--backends", "ctransformers,llama-cpp-python", "--concurrency", "2,1,2"]
    done = nitro("bench", *words, "--prompt-tokens", "9", "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(one["backend"], one["concurrency"]) for one in told["results"]] == [
        ("ctransformers", 1),
        ("llama-cpp-python", 1),
        ("ctransformers", 2),
        ("llama-cpp-python", 2),
    ]
    assert all(one["ratio"] == 1 for one in told["results"] if one["backend"] == "ctransformers")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bench_with_a_plot_that_cannot_be_written_measures_nothing(model: Path) -> None:
    for name, why in (("bench.gif", "no ending of a picture"), ("/nowhere/b.png", "cannot write")):
        done = nitro("bench", "--model", model, "--plot", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr


def test_bench_that_does_not_fit_is_misuse(model: Path) -> None:
    done = nitro("bench", "--model", model, "--threads", "1", "--prompt-tokens", "1000")
    assert (done.returncode, done.stdout) == (2, "")
    assert "do not fit a context of 512" in done.stderr


# doctor -------------------------------------------------------------------------------------------


def test_doctor_generates_and_says_that_models_can_run() -> None:
    done = nitro("doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["can_run"]) == (0, True)
    assert report["trial"]["completion_tokens"] > 0
    assert report["machine"]["cores"] >= report["machine"]["default_threads"] >= 1
    usable = {backend["name"]: backend["usable"] for backend in report["backends"]}
    assert usable == {"llama-cpp-python": True, "ctransformers": True}
    assert report["extras"]["server"]["flask"]
    assert "Models can run here." in nitro("doctor").stdout


def test_doctor_tells_of_a_wrong_environment() -> None:
    report = json.loads(nitro("doctor", "--json", NITRO_PORT="http", NITRO_PROT="1").stdout)
    assert "NITRO_PORT" in report["settings"]["fault"]
    assert report["settings"]["unknown"] == ["NITRO_PROT"]
    assert any("NITRO_PROT" in advice for advice in report["advice"])
