"""Loading and its failures, memory that comes back, forks, and texts made to kill the process."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading

import pytest
from support.gguf_draft import string
from support.gguf_families import model_draft
from support.gguf_maker import Shape, llama_draft, make_llama
from support.llama_runtime import IDS, feed_all, open_llama

from nitrolib.backends import Feed, LoadOptions, load
from nitrolib.backends.llama_cpp import bindings, loading
from nitrolib.errors import (
    BackendError,
    InvalidRequest,
    ModelFileError,
    ModelLoadError,
    NotEnoughMemory,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lifetime")


@pytest.fixture(scope="module")
def tiny(folder):
    return make_llama(folder / "tiny.gguf")


# Loading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"mmap": False},
        {"mlock": True},
        {"mmap": False, "mlock": True},
        {"flash_attention": True},
        {"flash_attention": False},
        {"n_batch": 16, "n_ubatch": 4},
        {"n_parallel": 8, "n_batch": 8},
        {"shared_context": True, "n_parallel": 4},
        {"ctx_len": 1},
        {"n_parallel": 256, "ctx_len": 2560},
        {"lookup": 8, "n_parallel": 3},
    ],
)
def test_every_option_gives_a_model_that_runs(tiny, changes):
    runtime = open_llama(tiny, **changes)
    runtime.decode([Feed(seq, (5,)) for seq in range(runtime.n_seq)])
    assert all(runtime.logits(seq).size == 512 for seq in range(runtime.n_seq))
    assert runtime.report.threads == 1
    assert runtime.report.gpu_layers == 0
    assert runtime.report.memory_bytes > 0
    runtime.close()


@pytest.mark.parametrize(("k", "v"), [("q8_0", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0")])
def test_a_quantised_cache_is_near_the_plain_one(folder, k, v):
    path = model_draft("qwen3").write(folder / f"cache-{k}-{v}.gguf")
    plain, small = open_llama(path), open_llama(path, cache_type_k=k, cache_type_v=v)
    difference = abs(feed_all(plain, 0, IDS) - feed_all(small, 0, IDS))
    assert 0 < difference.mean() < 0.5
    plain.close()
    small.close()


def test_options_are_refused_before_the_library_is_asked(tiny, monkeypatch):
    monkeypatch.setattr(loading, "open_model", None)
    for changes in ({"cache_type_k": "q8_0"}, {"n_parallel": 300, "ctx_len": 9999},
                    {"n_batch": 1, "n_parallel": 2}, {"threads": 10_000}):  # fmt: skip
        with pytest.raises(InvalidRequest):
            open_llama(tiny, **changes)


def test_memory_is_reckoned_before_the_library_is_asked(tiny, monkeypatch):
    monkeypatch.setattr(loading, "open_model", None)
    monkeypatch.setattr(loading.memory, "available_bytes", lambda: 1 << 20)
    with pytest.raises(NotEnoughMemory) as caught:
        open_llama(tiny)
    assert caught.value.needed_bytes > caught.value.available_bytes == 1 << 20


def test_a_file_outside_the_rule_never_reaches_the_library(folder, monkeypatch):
    monkeypatch.setattr(loading, "open_model", None)
    draft = llama_draft()
    draft["llama.block_count"] = draft["llama.block_count"].__class__(4, 600)
    with pytest.raises(ModelFileError):
        open_llama(draft.write(folder / "layers.gguf"))


def test_what_the_library_refuses_is_told_with_its_reason(folder):
    draft = llama_draft()
    draft.tensors = [entry for entry in draft.tensors if entry[0] != "blk.1.attn_q.weight"]
    with pytest.raises(ModelLoadError, match="attn_q") as caught:
        open_llama(draft.write(folder / "missing.gguf"))
    assert "attn_q" in caught.value.reason


def test_a_file_written_to_while_it_is_loaded_ends_no_process(folder):
    path = make_llama(folder / "changing.gguf")
    runtime = open_llama(path)
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(BackendError, match="written to"):
        runtime.decode([Feed(0, IDS)])
    runtime.close()


# Memory -------------------------------------------------------------------------------------------

CYCLES = """
import json, sys
sys.path[:0] = {path!r}
import psutil
from support.llama_runtime import IDS, feed_all, open_llama
sizes = []
for cycle in range({cycles}):
    runtime = open_llama({model!r}, ctx_len=2048, n_parallel=4, lookup=3)
    feed_all(runtime, 0, IDS)
    runtime.tokenize("hello")
    embedder = runtime.embedder()
    embedder.embed([IDS])
    runtime.close()
    del runtime, embedder
    sizes.append(psutil.Process().memory_info().rss)
print(json.dumps(sizes))
"""


def test_fifty_loads_leave_the_memory_of_the_first(folder):
    """Within 5 % of what the first left, which is mostly Python and the library itself."""
    shape = Shape(
        n_embd=512, n_layer=8, n_head=8, n_head_kv=8, n_ff=1408, n_vocab=2048, n_ctx_train=2048
    )
    model = make_llama(folder / "cycles.gguf", shape=shape, quant="Q8_0")
    code = CYCLES.format(path=sys.path, model=str(model), cycles=50)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sizes = json.loads(run.stdout)
    assert max(sizes[1:]) < 1.05 * sizes[0], [size >> 20 for size in sizes]


def test_close_frees_the_native_memory_at_once(tiny, monkeypatch):
    freed = []
    native = bindings.native()
    for name in ("context_free", "model_free"):
        real = getattr(native, name)
        monkeypatch.setattr(
            native, name, lambda address, real=real, name=name: (freed.append(name), real(address))
        )
    runtime = open_llama(tiny)
    feed_all(runtime, 0, IDS)
    embedder = runtime.embedder()
    embedder.embed([IDS])
    gc.collect()
    gc.disable()
    try:
        runtime.close()
        assert freed == ["context_free", "context_free", "model_free"]
    finally:
        gc.enable()


def test_a_failed_load_leaves_nothing_behind(tiny, monkeypatch):
    freed = []
    native = bindings.native()
    real = native.model_free
    monkeypatch.setattr(native, "model_free", lambda a: (freed.append(a), real(a)))
    monkeypatch.setattr(native, "context_init", lambda *_: None)
    with pytest.raises(ModelLoadError) as caught:
        open_llama(tiny)
    assert len(freed) == 1, caught.value


# Forks --------------------------------------------------------------------------------------------

FORK = """
import os, sys
sys.path[:0] = {path!r}
from nitrolib.errors import BackendUnavailable, ModelNotLoaded
from support.llama_runtime import IDS, feed_all, open_llama
runtime = open_llama({model!r})
if {evaluated}:
    feed_all(runtime, 0, IDS)
child = os.fork()
if child == 0:
    try:
        runtime.length(0)
    except ModelNotLoaded as error:
        assert "forked" in str(error), error
    try:
        other = open_llama({model!r})
        feed_all(other, 0, IDS)
        assert not {evaluated}
    except BackendUnavailable as error:
        assert {evaluated} and "spawn" in str(error), error
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
feed_all(runtime, 0, IDS)
runtime.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("evaluated", [True, False])
def test_the_child_of_a_fork_is_told_instead_of_hanging(tiny, evaluated):
    code = FORK.format(path=sys.path, model=str(tiny), evaluated=evaluated)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


# Texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", ["gpt-4o", "exaone-moe", "bloom", "deepseek-v3"])
def test_a_text_without_end_does_not_overflow_the_stack(folder, pre):
    """With threads of 1 MiB, 3,000 letters in a row ended the process, and with these expressions
    no text of 150,000 was safe on the main thread."""
    draft = model_draft("qwen3")
    draft["tokenizer.ggml.pre"] = string(pre)
    runtime = open_llama(draft.write(folder / f"{pre}.gguf"), embedding=False)
    texts = [unit * (40_000 // len(unit)) for unit in ("a", "hello ", "é1", " ", "!", "你好，")]
    found = []
    size = threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(target=lambda: found.extend(map(runtime.tokenize, texts)))
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    pieces = runtime.vocabulary.pieces
    spelled = [b"".join(pieces[number] for number in ids).decode() for ids in found]
    assert spelled == texts
    runtime.close()


def test_runs_of_spaces_take_no_minutes(folder):
    """A vocabulary that keeps runs whole took 86 s for 300,000 spaces."""
    path = model_draft("gemma3").write(folder / "gemma3.gguf")
    runtime = load(path, LoadOptions(threads=1, ngl=0, embedding=False), "llama-cpp-python")
    for text in (" " * 100_000, "a\n" * 50_000):
        ids = runtime.tokenize(text)
        assert b"".join(runtime.vocabulary.pieces[number] for number in ids).decode() == text
    runtime.close()
