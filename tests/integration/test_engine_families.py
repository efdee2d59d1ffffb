"""Models of today's families behind the whole engine: chats in their own templates, streamed
characters of several bytes, prompts that go on where another ended; in every type of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fake_runtime import assert_at_rest
from support.gguf_families import GENERATING, make_model

from nitrolib import Engine, LoadOptions, Message, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
BACKEND = "llama-cpp-python"
GREEDY = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=24, ignore_eos=True)
# Family -> the marker that its template puts before what a user says.
MARKERS = {
    "llama": "<|im_start|>",
    "llama3": "<|start_header_id|>",
    "qwen2": "<|im_start|>",
    "qwen3": "<|im_start|>",
    "qwen3moe": "<|im_start|>",
    "gemma2": "<start_of_turn>",
    "gemma3": "<start_of_turn>",
    "phi3": "<|user|>",
}


@pytest.fixture(scope="module", params=GENERATING)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def engine(family: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = make_model(tmp_path_factory.mktemp("family") / f"{family}.gguf", family)
    options = LoadOptions(
        threads=1, ctx_len=1024, n_parallel=2, flash_attention=False, warm_up=False
    )
    with Engine.open(path, options, backend=BACKEND) as opened:
        yield opened
        opened.clear_cache()
        assert_at_rest(opened)


def test_a_chat_begins_as_the_family_has_it(engine: Engine, family: str) -> None:
    vocabulary = engine.vocabulary
    done = engine.chat([Message("user", "Hello")], SamplingParams(seed=1, max_tokens=4))
    ids = done.prompt_token_ids
    assert done.usage.completion_tokens <= 4
    if vocabulary.add_bos:
        assert ids[0] == vocabulary.bos
        assert vocabulary.bos not in ids[1:]
    if family in MARKERS:
        marker = vocabulary.special[MARKERS[family]]
        assert marker in ids
        typed = engine.chat([Message("user", f"Hello {MARKERS[family]}")], GREEDY)
        assert typed.prompt_token_ids.count(marker) == ids.count(marker)


@pytest.mark.parametrize(
    "text", ["\u00e9t\u00e9", "\u4f60\u597d", "\U0001f600!", "na\u00efve \u041f"]
)
def test_characters_of_several_bytes_are_streamed_whole(engine: Engine, text: str) -> None:
    """A grammar leaves the model no choice but the text, some of it in tokens of single bytes."""
    pytest.importorskip("llguidance")
    params = SamplingParams(temperature=0, grammar=f'root ::= "{text}"', max_tokens=40)
    generation = engine.stream("Say it: ", params)
    chunks = [chunk.text for chunk in generation]
    assert "".join(chunks) == text
    assert generation.result().complete
    assert not any("\ufffd" in chunk for chunk in chunks)


def test_a_prompt_that_goes_on_gives_what_it_gives_from_scratch(engine: Engine) -> None:
    first = engine.complete("Hello world, this is", GREEDY)
    prompt = (*first.prompt_token_ids, *first.token_ids, *engine.tokenize(" and more"))
    warm = engine.complete(prompt, GREEDY)
    assert warm.usage.cached_tokens >= len(first.prompt_token_ids)
    fresh = engine.complete(prompt, GREEDY, cache_prompt=False)
    assert fresh.usage.cached_tokens == 0
    assert warm.token_ids == fresh.token_ids


@pytest.mark.parametrize("quant", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K"])
@pytest.mark.parametrize("name", ["llama3", "gemma3", "phi3", "mixtral", "qwen3moe"])
def test_every_type_loads_and_generates(tmp_path: Path, name: str, quant: str) -> None:
    path = make_model(tmp_path / "m.gguf", name, quant)
    options = LoadOptions(threads=1, ctx_len=128, warm_up=False)
    with Engine.open(path, options, backend=BACKEND) as engine:
        one, again = (engine.complete("Hello world", GREEDY) for _ in range(2))
    assert (one.finish_reason, len(one.token_ids)) == ("length", 24)
    assert len(set(one.token_ids)) > 1
    assert again.usage.cached_tokens == len(again.prompt_token_ids) - 1


@pytest.mark.parametrize("name", ["llama", "llama3", "qwen3", "phi3"])
def test_a_shared_output_generates_too(tmp_path: Path, name: str) -> None:
    path = make_model(tmp_path / "m.gguf", name, "Q8_0", tied=True)
    with Engine.open(path, LoadOptions(threads=1, ctx_len=128), backend=BACKEND) as engine:
        assert len(set(engine.complete("Hello world", GREEDY).token_ids)) > 2
