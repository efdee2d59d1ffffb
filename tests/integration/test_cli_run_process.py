"""`nitro run` and `nitro inspect` as real processes on a real model file."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.gguf_draft import string
from support.gguf_maker import Shape, llama_draft, make_llama
from support.nitro_process import NITRO, ROOT, environment, nitro, running

each = pytest.mark.usefixtures("each_backend")
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("run") / "tiny.gguf")


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose answer takes long enough to be interrupted."""
    shape = Shape(
        n_embd=512, n_layer=8, n_head=8, n_head_kv=8, n_ff=2048, n_vocab=512, n_ctx_train=4096
    )
    return make_llama(tmp_path_factory.mktemp("run") / "slow.gguf", shape=shape, quant="Q8_0")


def words(model: Path, *more: str) -> list[str]:
    return ["run", "--model", str(model), "--threads", "1", "--ngl", "0", "--greedy", *more]


@each
def test_the_answer_and_nothing_else_is_on_standard_output(model: Path) -> None:
    done = nitro(*words(model, "--max-tokens", "12", "Hello"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n")
    assert done.stdout.strip()


@each
def test_json_is_one_object_that_agrees_with_the_text(model: Path, backend: str) -> None:
    told = nitro(*words(model, "--max-tokens", "12", "Hello"))
    done = nitro(*words(model, "--max-tokens", "12", "--json", "Hello"))
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["text"] == told.stdout.removesuffix("\n")
    assert answer["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert 1 <= usage["completion_tokens"] <= 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert answer["timings"]["prefill_s"] > 0
    assert answer["model"]["backend"] == backend
    assert answer["model"]["path"] == str(model)


@each
def test_a_piped_prompt_is_the_same_prompt(model: Path) -> None:
    by_argument = nitro(*words(model, "--max-tokens", "8", "Grüße, 世界"))
    by_pipe = nitro(*words(model, "--max-tokens", "8"), given="Grüße, 世界\n".encode())
    assert by_pipe.stdout == by_argument.stdout
    assert by_pipe.returncode == 0


@each
def test_raw_leaves_the_template_out(model: Path) -> None:
    def prompt_tokens(*more: str) -> int:
        done = nitro(*words(model, "--max-tokens", "1", "--json", *more, "Hello"))
        count: int = json.loads(done.stdout)["usage"]["prompt_tokens"]
        return count

    assert prompt_tokens("--raw") < prompt_tokens() < prompt_tokens("--system", "Be brief.")
    assert prompt_tokens("--pre-prompt", "") < prompt_tokens()


@each
def test_a_seed_fixes_the_answer(model: Path) -> None:
    sampled = ["run", "--model", str(model), "--threads", "1", "--ngl", "0", "--max-tokens", "16"]
    first, again, other = (nitro(*sampled, "--seed", seed, "Hello").stdout for seed in "112")
    assert first == again
    assert first != other


@each
def test_a_stop_text_ends_the_answer_and_is_left_out(model: Path) -> None:
    whole = nitro(*words(model, "--max-tokens", "12", "Hello")).stdout
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    done = nitro(*words(model, "--max-tokens", "12", "--stop", stop, "--json", "Hello"))
    answer = json.loads(done.stdout)
    assert (answer["finish_reason"], answer["stop"]) == ("stop", stop)
    assert answer["text"] == whole[: whole.index(stop)]


@each
def test_a_prompt_that_does_not_fit_is_a_failure_with_the_numbers(model: Path) -> None:
    done = nitro(*words(model, "--ctx-len", "16", "Hello"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "the context holds 16" in done.stderr


@each
def test_gpu_layers_that_cannot_be_had_are_a_failure(model: Path) -> None:
    done = nitro("run", "--model", model, "--threads", "1", "--ngl", "1", "Hello",
                 CUDA_VISIBLE_DEVICES="")  # fmt: skip
    if done.returncode == 0:
        pytest.skip("this machine has a GPU that can be used")
    assert done.returncode == 1
    assert "ngl 1 cannot be honoured" in done.stderr


@each
def test_who_asks_for_more_context_than_there_is_is_told(model: Path) -> None:
    done = nitro(*words(model, "--ctx-len", "100000", "--max-tokens", "2", "Hello"))
    assert done.returncode == 0
    assert "nitro: note: " in done.stderr
    assert "512" in done.stderr


@pytest.mark.parametrize("given", [b"\xff\xfe", b"", b" \n"])
def test_a_piped_prompt_that_is_none_is_misuse(model: Path, given: bytes) -> None:
    done = nitro(*words(model), given=given)
    assert (done.returncode, done.stdout) == (2, "")


@each
@posix
def test_a_reader_that_goes_away_ends_it_quietly(slow_model: Path) -> None:
    """As in `nitro run ... | head -c 1`."""
    with running(*words(slow_model, "--max-tokens", "3000", "Hello")) as child:
        assert child.stdout is not None
        assert child.stdout.read(1)
        child.stdout.close()
        assert child.wait(60) == 141
        assert child.stderr is not None
        assert child.stderr.read() == b""


@each
@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quickly_and_without_a_traceback(
    slow_model: Path, number: int, status: int
) -> None:
    with running(*words(slow_model, "--max-tokens", "8000", "Hello")) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        started = time.monotonic()
        child.send_signal(number)
        _, err = child.communicate(timeout=120)
        assert child.returncode == status
        assert time.monotonic() - started < 30
        assert err == b""


@each
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_a_failure_and_said_once(model: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*NITRO, *words(model, "--max-tokens", "4", "Hello")],
            stdout=full, stderr=subprocess.PIPE, cwd=ROOT, env=environment(), timeout=120,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == b"nitro: No space left on device\n"


@posix
def test_closed_standard_streams_are_empty_ones(model: Path) -> None:
    command = " ".join(shlex.quote(word) for word in [*NITRO, *words(model, "--max-tokens", "2")])
    for closed, status in ((f"{command} Hello >&-", 0), (f"{command} <&-", 2)):
        done = subprocess.run(
            ["sh", "-c", closed], capture_output=True, cwd=ROOT, env=environment(), timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == status
        assert b"Traceback" not in done.stderr


# the document -------------------------------------------------------------------------------------


def examples() -> list[tuple[str, str]]:
    """The examples of docs/command.md that can be run: greedy ones, with what they print."""
    text = (ROOT / "docs" / "command.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    shown = [one.partition("\n") for block in blocks for one in f"\n{block}".split("\n$ ")[1:]]
    return [
        (command, printed.rstrip("\n") + "\n")
        for command, _, printed in shown
        if "--greedy" in command and not printed.lstrip("\n").startswith("nitro-demo,")
    ]


@posix
@pytest.mark.parametrize(("command", "printed"), examples())
def test_the_document_shows_what_is_printed(command: str, printed: str) -> None:
    shell = f'nitro() {{ {shlex.join(NITRO)} "$@"; }}; {command} --threads 1'
    done = subprocess.run(
        ["sh", "-c", shell], capture_output=True, cwd=ROOT, env=environment(), timeout=120,
        check=False, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (printed, "")


def test_the_document_has_examples_to_run() -> None:
    assert len(examples()) >= 4


# inspect ------------------------------------------------------------------------------------------


def test_inspect_tells_what_is_in_a_file(model: Path) -> None:
    done = nitro("inspect", model, "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert (told["architecture"], told["n_layer"], told["n_embd"]) == ("llama", 2, 64)
    assert (told["n_ctx_train"], told["n_vocab"], told["quantization"]) == (512, 512, "F32")
    assert (told["runs"], told["backend"]) == (True, "llama-cpp-python")
    assert told["memory"]["total_bytes"] > told["file_bytes"]
    assert told["metadata"]["tokenizer.ggml.tokens"] == {"array": "array of string", "length": 512}


def test_inspect_as_text_has_no_decoration_in_a_pipe(model: Path) -> None:
    done = nitro("inspect", model)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "yes, with llama-cpp-python" in done.stdout
    assert "llama.block_count" in done.stdout


def test_inspect_reckons_the_memory_of_the_settings_given(model: Path) -> None:
    def needed(*more: str) -> int:
        told = json.loads(nitro("inspect", model, "--json", *more).stdout)
        total: int = told["memory"]["total_bytes"]
        return total

    assert needed("--ctx-len", "256") < needed("--ctx-len", "512")
    assert needed("--ctx-len", "256") < needed("--ctx-len", "512", "--n-parallel", "2")


@pytest.mark.parametrize("keep", [0, 3, 100, 5000, -1])
def test_inspect_of_a_damaged_file_is_a_failure_with_the_reason(
    model: Path, tmp_path: Path, keep: int
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(model.read_bytes()[:keep])
    done = nitro("inspect", damaged)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"nitro: {damaged}: ")
    assert done.stderr.count("\n") == 1


def test_inspect_of_a_sound_file_that_nothing_runs_says_why_and_succeeds(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["general.architecture"] = string("of-tomorrow")
    other = draft.write(tmp_path / "other.gguf")
    done = nitro("inspect", other, "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["runs"] is False
    assert "of-tomorrow" in told["reason"]


def test_inspect_shows_no_control_characters_of_a_file(tmp_path: Path) -> None:
    evil = make_llama(tmp_path / "evil.gguf", name="\x1b]0;owned\x07\x1b[2J")
    done = nitro("inspect", evil)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\\x1b]0;owned" in done.stdout
