"""`nitro chat` as a real process: through a pipe, and at a terminal with keys pressed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.gguf_maker import Shape, make_llama
from support.nitro_process import Terminal, nitro

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("each_backend")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("chat") / "tiny.gguf")


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose answer takes long enough to be interrupted."""
    shape = Shape(
        n_embd=512, n_layer=8, n_head=8, n_head_kv=8, n_ff=2048, n_vocab=512, n_ctx_train=4096
    )
    return make_llama(tmp_path_factory.mktemp("chat") / "slow.gguf", shape=shape, quant="Q8_0")


def words(model: Path, *more: str) -> list[str]:
    base = ["chat", "--model", str(model), "--threads", "1", "--ngl", "0", "--greedy"]
    # Short prompts: the random model has few long pieces, and its context is small.
    prompts = ["--pre-prompt", "", "--user-prompt", "U:", "--ai-prompt", "A:"]
    return [*base, *prompts, *more]


def test_through_a_pipe_only_answers_are_written(model: Path) -> None:
    done = nitro(*words(model, "--max-tokens", "6"), given=b"Hello\n\nAnd you?\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert ">" not in done.stdout.splitlines()[0][:1]
    alone = nitro(*words(model, "--max-tokens", "6"), given=b"Hello\n")
    assert done.stdout.startswith(alone.stdout)
    assert len(done.stdout) > len(alone.stdout) > 0


def test_the_conversation_is_remembered(model: Path) -> None:
    """The second answer depends on the first message, so taking that back changes it."""
    both = nitro(*words(model, "--max-tokens", "6"), given=b"Hello\nAnd you?\n").stdout
    undone = nitro(*words(model, "--max-tokens", "6"), given=b"Hello\n/undo\nAnd you?\n").stdout
    alone = nitro(*words(model, "--max-tokens", "6"), given=b"And you?\n").stdout
    assert undone.endswith(alone)
    assert not both.endswith(alone)


def test_save_and_load_go_on_with_a_conversation(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    straight = nitro(*words(model, "--max-tokens", "6"), given=b"Hello\nAnd you?\n").stdout
    first = nitro(*words(model, "--max-tokens", "6"), given=f"Hello\n/save {file}\n".encode())
    second = nitro(*words(model, "--max-tokens", "6"), given=f"/load {file}\nAnd you?\n".encode())
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout + second.stdout == straight


def test_regenerate_answers_the_last_message_again(model: Path) -> None:
    done = nitro(*words(model, "--max-tokens", "6"), given=b"Hello\n/regenerate\n")
    half = len(done.stdout) // 2
    assert done.returncode == 0
    assert done.stdout[:half] == done.stdout[half:]  # greedy


def test_a_slash_can_be_sent_and_an_unknown_command_is_told(model: Path) -> None:
    done = nitro(*words(model, "--max-tokens", "4"), given=b"//etc\n/dance\nHello\n")
    assert done.returncode == 1
    assert "there is no command /dance" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout  # the messages around it were answered


def test_a_system_message_starts_a_new_conversation(model: Path) -> None:
    given = b"Hello\n/system Be brief.\nAnd you?\n"
    done = nitro(*words(model, "--max-tokens", "6"), given=given)
    alone = nitro(*words(model, "--max-tokens", "6", "--system", "Be brief."), given=b"And you?\n")
    assert done.stdout.endswith(alone.stdout)


def test_what_is_left_out_to_fit_is_told(model: Path) -> None:
    given = b"Hello\nAnd you?\nAnd now?\nAnd then?\n"
    done = nitro(*words(model, "--max-tokens", "8", "--ctx-len", "48"), given=given)
    assert done.returncode == 0
    assert "oldest turns were left out" in done.stderr
    assert len(done.stdout.splitlines()) >= 4


def test_the_bundled_model_needs_no_flag_and_answers_each_question_differently() -> None:
    given = b"Hello\nWhat is the capital of France?\nTell me a story\n"
    done = nitro("chat", "--greedy", "--threads", "1", "--ngl", "0", given=given)
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.splitlines()
    assert len({*answers}) == len(answers) >= 3
    alone = nitro("run", "--greedy", "--threads", "1", "--ngl", "0", "Hello")
    assert alone.stdout.splitlines() == answers[:1]


def test_quit_leaves_the_rest_unread(model: Path) -> None:
    done = nitro(*words(model, "--max-tokens", "4"), given=b"/quit\nHello\n")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_file_that_is_not_there_is_told(model: Path, tmp_path: Path) -> None:
    done = nitro(*words(model), given=f"/load {tmp_path}/none.json\n".encode())
    assert done.returncode == 1
    assert "none.json" in done.stderr


terminal = pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal as Linux has it")


@terminal
def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(slow_model: Path) -> None:
    with Terminal(words(slow_model, "--max-tokens", "3000")) as chat:
        chat.wait_for("> ")
        chat.type("Hello\n")
        chat.wait_for("Hello\r\n")
        assert chat.wait_for_more(20)
        chat.type("\x03")
        chat.wait_for("(stopped)")
        chat.wait_for("> ")
        chat.type("/undo\n")
        chat.wait_for("(taken back)")  # so what there was of the answer had been kept
        chat.wait_for("> ")
        chat.type("/help\n")
        chat.wait_for("/regenerate")
        chat.wait_for("> ")
        chat.press("\x03", "(Ctrl-D leaves)")
        chat.type("/quit\n")
        assert chat.status() == 0


@terminal
def test_sigterm_at_the_prompt_ends_it(model: Path) -> None:
    with Terminal(words(model, "--max-tokens", "4")) as chat:
        chat.wait_for("> ")
        for _ in range(10):  # once is enough, but for the moment that `press` tells of
            chat.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                chat.child.wait(10)
                break
        assert chat.status() == 143
        assert "Traceback" not in chat.shown


@terminal
def test_a_mistake_is_told_and_the_chat_goes_on(model: Path) -> None:
    with Terminal(words(model, "--max-tokens", "4")) as chat:
        chat.wait_for("> ")
        chat.type("/undo\n")
        chat.wait_for("nitro: there is nothing to undo")
        chat.wait_for("> ")
        chat.type("Hello\n")
        chat.wait_for("> ")
        chat.type("/undo\n")
        chat.wait_for("(taken back)")


@terminal
def test_ctrl_d_leaves(model: Path) -> None:
    with Terminal(words(model, "--max-tokens", "4")) as chat:
        greeting = chat.wait_for("> ")
        assert "512 tokens of context" in greeting
        chat.type("\x04")
        assert chat.status() == 0
        assert "Traceback" not in chat.shown
