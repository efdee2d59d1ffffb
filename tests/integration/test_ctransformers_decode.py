"""Evaluation on the real library: right numbers, and every argument checked before native code."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys

import numpy as np
import pytest
from support import gguf_draft as gd
from support.gguf_maker import Shape, llama_draft, make_llama

from nitrolib.backends import Feed, LoadOptions
from nitrolib.backends import ctransformers as backend
from nitrolib.backends.ctransformers import load
from nitrolib.backends.library import cpu_variant, find_library, installed_variants, open_library
from nitrolib.backends.native import default_params
from nitrolib.backends.threads import available_cores
from nitrolib.errors import BackendError, InvalidRequest, Unsupported

IDS = [1, *range(260, 300), 5, 17, 400]


def options(**changes) -> LoadOptions:
    return LoadOptions(**{"ctx_len": 128, "threads": 1, "ngl": 0, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("decode")


@pytest.fixture(scope="module")
def tiny(folder):
    return make_llama(folder / "tiny.gguf", quant="Q8_0")


@pytest.fixture
def runtime(tiny):
    runtime = load(tiny, options(ctx_len=512, n_parallel=4))
    yield runtime
    runtime.close()


def feed_all(runtime, seq, ids, step=None) -> np.ndarray:
    step = step or runtime.n_batch
    for start in range(0, len(ids), step):
        runtime.decode([Feed(seq, ids[start : start + step])])
    return runtime.logits(seq).copy()


def raw_logits(path, ids, **changes) -> np.ndarray:
    """Straight through the C API, with parameters of one's own."""
    native = open_library(cpu_variant(installed_variants())).native
    params = default_params()
    params.n_ctx = 128
    for name, value in changes.items():
        setattr(params, name, value)
    model = native.llama_load_model_from_file(str(path).encode(), params)
    context = native.llama_new_context_with_model(model, params)
    tokens = np.array(ids, np.int32)
    assert native.llama_eval(context, tokens.ctypes.data, len(ids), 0, 1) == 0
    n_vocab = native.llama_model_n_vocab(model)
    pointer = ctypes.cast(native.llama_get_logits(context), ctypes.POINTER(ctypes.c_float))
    logits = np.ctypeslib.as_array(pointer, (n_vocab,)).copy()
    native.llama_free(context)
    native.llama_free_model(model)
    return logits


# Right numbers ------------------------------------------------------------------------------------


def test_logits_are_those_of_ctransformers_to_the_bit(tiny, runtime):
    code = (
        "import sys, numpy as np; from ctransformers.llm import LLM, Config;"
        "llm = LLM(sys.argv[1], 'gguf', config=Config(context_length=128), lib=sys.argv[2]);"
        "llm.eval([int(t) for t in sys.argv[3].split()], threads=1);"
        "sys.stdout.buffer.write(np.array(list(llm.logits), np.float32).tobytes())"
    )
    command = [sys.executable, "-c", code, str(tiny), str(find_library()), " ".join(map(str, IDS))]
    run = subprocess.run(command, capture_output=True, check=True)
    theirs = np.frombuffer(run.stdout, np.float32)
    assert np.array_equal(feed_all(runtime, 0, IDS), theirs)


@pytest.mark.parametrize(
    ("key", "value", "field", "given"),
    [
        ("llama.rope.freq_base", 1e6, "rope_freq_base", 1e6),
        ("llama.rope.scale_linear", 4.0, "rope_freq_scale", 0.25),
    ],
)
def test_rope_values_of_the_file_are_honoured(folder, key, value, field, given):
    plain = make_llama(folder / "plain.gguf")
    draft = llama_draft()
    draft[key] = gd.f32(value)
    runtime = load(draft.write(folder / f"{field}.gguf"), options())
    ours = feed_all(runtime, 0, IDS)
    runtime.close()
    assert np.array_equal(ours, raw_logits(plain, IDS, **{field: given}))
    assert not np.allclose(ours, raw_logits(plain, IDS), atol=0.1)


def test_chunks_of_a_prompt_give_the_same_logits(runtime):
    whole = feed_all(runtime, 0, IDS)
    for seq, step in ((1, 1), (2, 7), (3, 32)):
        assert np.array_equal(feed_all(runtime, seq, IDS, step), whole)


def test_rolling_back_equals_a_fresh_evaluation(runtime):
    fresh = feed_all(runtime, 0, [*IDS[:20], 9, 8, 7])
    feed_all(runtime, 1, IDS)
    runtime.keep(1, 20)
    assert runtime.length(1) == 20
    assert np.array_equal(feed_all(runtime, 1, [9, 8, 7]), fresh)
    runtime.keep(1, 0)
    assert np.array_equal(feed_all(runtime, 1, [*IDS[:20], 9, 8, 7]), fresh)


@pytest.mark.parametrize("threads", [1, 2])
def test_side_by_side_equals_one_after_the_other_to_the_bit(tiny, threads):
    if threads > available_cores():
        pytest.skip("needs two cores")
    prompts = [IDS[:10], IDS[:33], IDS[5:44], IDS[:1]]
    alone = load(tiny, options())
    expected = []
    for prompt in prompts:
        alone.keep(0, 0)
        rows = [feed_all(alone, 0, prompt)]
        rows += [feed_all(alone, 0, [token]) for token in (3, 300, 77)]
        expected.append(rows)
    alone.close()
    runtime = load(tiny, options(ctx_len=512, n_parallel=4, threads=threads))
    rows = []
    for step in (prompts, [[3]] * 4, [[300]] * 4, [[77]] * 4):
        runtime.decode([Feed(seq, tokens) for seq, tokens in enumerate(step)])
        rows.append([runtime.logits(seq).copy() for seq in range(4)])
    runtime.close()
    for seq in range(4):
        for step in range(4):
            assert np.array_equal(rows[step][seq], expected[seq][step])


def test_sequences_do_not_see_each_other(runtime):
    expected = feed_all(runtime, 0, IDS[:10])
    feed_all(runtime, 1, IDS[10:30])
    feed_all(runtime, 2, [7])
    runtime.keep(0, 9)
    assert np.array_equal(feed_all(runtime, 0, IDS[9:10]), expected)


@pytest.mark.parametrize("n_ctx", [1, 2, 3, 5])
def test_the_smallest_contexts_work(tiny, n_ctx):
    runtime = load(tiny, options(ctx_len=n_ctx))
    assert runtime.n_ctx == n_ctx
    logits = feed_all(runtime, 0, IDS[:n_ctx])
    assert runtime.length(0) == n_ctx
    runtime.close()
    assert np.array_equal(logits, raw_logits(tiny, IDS[:n_ctx]))


@pytest.mark.parametrize("ctx_len", [40, 128, 600])
def test_a_full_context_is_right_up_to_its_last_cell(tiny, ctx_len):
    ids = [3 + i % 400 for i in range(min(ctx_len, 512))]
    runtime = load(tiny, options(ctx_len=ctx_len))
    assert runtime.n_ctx == len(ids)  # trained for 512
    logits = feed_all(runtime, 0, ids)
    with pytest.raises(InvalidRequest, match="cannot be fed") as caught:
        runtime.decode([Feed(0, [5])])
    assert "full" in caught.value.allowed
    assert np.array_equal(runtime.logits(0), logits)  # the refused feed changed nothing
    runtime.close()
    assert np.array_equal(logits, raw_logits(tiny, ids, n_ctx=len(ids), n_batch=512))


# What the native code would die of ----------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens",
    [[], [-1], [512], [1, -1], [1, 512], [2**31], [-(2**63)], [1, 2**80], [1.0], [1, 2.5], ["a"],
     [None], [None, 1], [True, False], [[1], [2]], [[1, 2], 3]],
)  # fmt: skip
def test_what_are_no_token_ids_is_refused_and_nothing_is_fed(runtime, tokens):
    feed_all(runtime, 0, IDS[:5])
    before = runtime.logits(0).copy()
    with pytest.raises(InvalidRequest) as caught:
        runtime.decode([Feed(0, tokens)])
    assert caught.value.field == "tokens"
    with pytest.raises(InvalidRequest):
        runtime.decode([Feed(1, IDS[:3]), Feed(0, tokens)])
    assert (runtime.length(0), runtime.length(1)) == (5, 0)
    assert np.array_equal(runtime.logits(0), before)


@pytest.mark.parametrize(
    "tokens", [(5, 6), np.array([5, 6]), np.array([5, 6], np.uint8), range(5, 7)]
)
def test_any_sequence_of_whole_numbers_will_do(runtime, tokens):
    expected = feed_all(runtime, 0, [5, 6])
    assert np.array_equal(feed_all(runtime, 1, tokens), expected)
    runtime.keep(1, 0)
    assert runtime.decode([Feed(1, [np.int64(5)]), Feed(2, (5,))]) is None


def test_more_tokens_than_a_batch_are_refused(runtime):
    with pytest.raises(InvalidRequest) as caught:
        runtime.decode([Feed(0, [5] * (runtime.n_batch + 1))])
    assert caught.value.allowed == f"1 to {runtime.n_batch} tokens at a time"


def test_more_tokens_than_the_context_holds_are_refused(runtime):
    feed_all(runtime, 0, [5] * 120)
    with pytest.raises(InvalidRequest):
        runtime.decode([Feed(0, [5] * 9)])
    feed_all(runtime, 0, [5] * 8)
    assert runtime.length(0) == runtime.n_ctx == 128


@pytest.mark.parametrize("seq", [-1, 4, 1000])
def test_a_sequence_that_is_not_there_is_refused(runtime, seq):
    for call in (
        lambda: runtime.decode([Feed(seq, [5])]),
        lambda: runtime.length(seq),
        lambda: runtime.keep(seq, 0),
        lambda: runtime.logits(seq),
        lambda: runtime.embed(seq),
    ):
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.field == "seq"
        assert caught.value.allowed == "0 to 3"


def test_two_feeds_of_one_sequence_are_refused(runtime):
    with pytest.raises(InvalidRequest, match="one feed"):
        runtime.decode([Feed(0, [5]), Feed(0, [6])])
    assert runtime.length(0) == 0


@pytest.mark.parametrize("n", [-1, 6, 128])
def test_keeping_more_than_there_is_is_refused(runtime, n):
    feed_all(runtime, 0, IDS[:5])
    with pytest.raises(InvalidRequest) as caught:
        runtime.keep(0, n)
    assert caught.value.allowed == "0 to 5"


def test_no_feed_is_no_evaluation(runtime):
    runtime.decode([])
    assert runtime.length(0) == 0


def test_logits_are_only_given_for_the_feed_that_asked(runtime):
    with pytest.raises(InvalidRequest, match="no logits"):
        runtime.logits(0)  # uninitialised memory natively
    runtime.decode([Feed(0, [5], "none")])
    with pytest.raises(InvalidRequest, match="no logits"):
        runtime.logits(0)
    runtime.decode([Feed(0, [5])])
    runtime.logits(0)
    runtime.keep(0, 2)
    runtime.logits(0)  # nothing was forgotten
    runtime.keep(0, 1)
    with pytest.raises(InvalidRequest, match="no logits"):
        runtime.logits(0)


def test_one_attention_head_is_fed_token_by_token(folder):
    """Natively a batch of such a model is written beyond its memory."""
    shape = Shape(
        n_embd=32, n_layer=2, n_head=1, n_head_kv=1, n_ff=64, n_vocab=300, n_ctx_train=256
    )
    runtime = load(make_llama(folder / "one.gguf", shape=shape), options(ctx_len=64))
    assert runtime.n_batch == 1
    logits = feed_all(runtime, 0, [5 + i for i in range(64)])
    runtime.close()
    assert np.isfinite(logits).all()
    assert logits.std() < 10


NARROW = Shape(n_embd=256, n_layer=1, n_head=2, n_head_kv=2, n_ff=8, n_vocab=400, n_ctx_train=128)


def test_a_batch_near_the_scratch_size_is_not_offered(folder):
    """Natively 127 tokens in a context of 128 need a third more scratch than the 128 that it was
    measured for, and the process ends."""
    path = make_llama(folder / "narrow.gguf", shape=NARROW)
    run = subprocess.run(
        [sys.executable, "-c", _RAW_127, str(path)], capture_output=True, check=False
    )
    assert run.returncode != 0
    assert b"not enough space" in run.stderr
    runtime = load(path, options(ctx_len=128))
    assert runtime.n_batch == 64
    for count in range(1, 65):
        for past in (0, 1, 128 - count):
            runtime.keep(0, 0)
            if past:
                feed_all(runtime, 0, [5] * past)
            runtime.decode([Feed(0, [7] * count)])
    runtime.close()


_RAW_127 = """
import sys
import numpy as np
from nitrolib.backends.library import cpu_variant, installed_variants, open_library
from nitrolib.backends.native import default_params
native = open_library(cpu_variant(installed_variants())).native
params = default_params()
params.n_ctx = 128
model = native.llama_load_model_from_file(sys.argv[1].encode(), params)
context = native.llama_new_context_with_model(model, params)
native.llama_eval(context, np.full(127, 5, np.int32).ctypes.data, 127, 0, 1)
"""


@pytest.mark.parametrize("asked", [0, -1])
def test_threads_below_one_are_refused(asked):
    with pytest.raises(InvalidRequest):
        options(threads=asked)


def test_more_threads_than_cores_are_refused_before_anything_is_loaded(tiny):
    with pytest.raises(InvalidRequest) as caught:
        load(tiny, options(threads=4096))
    assert caught.value.field == "threads"


# Failures -----------------------------------------------------------------------------------------


def _poisoned(folder, value: float):
    """A model whose embedding of token 7 is `value`: sound for every check before loading."""
    draft = llama_draft()
    tensor = draft.tensor("token_embd.weight")
    rows = np.frombuffer(b"".join(tensor.data()), np.float32).reshape(512, 64).copy()
    rows[7] = value
    tensor.data = lambda: [rows.tobytes()]
    return draft.write(folder / f"poisoned{value}.gguf")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_fail_the_sequence_and_no_other(folder, value):
    runtime = load(_poisoned(folder, value), options(ctx_len=256, n_parallel=2))
    feed_all(runtime, 0, [5, 6])
    expected = feed_all(runtime, 1, [5, 6])
    with pytest.raises(BackendError, match="sequence 0: the logits are not finite") as caught:
        runtime.decode([Feed(0, [7]), Feed(1, [8])])
    assert caught.value.failed == (0,)
    assert (runtime.length(0), runtime.length(1)) == (0, 3)
    runtime.logits(1)
    with pytest.raises(BackendError):
        runtime.decode([Feed(1, [7])])
    assert runtime.length(1) == 0
    assert np.array_equal(feed_all(runtime, 0, [5, 6]), expected)  # usable at once
    runtime.close()


def test_one_wrong_number_among_all_logits_is_seen(runtime, monkeypatch):
    feed_all(runtime, 0, [5])
    row = runtime.logits(0)
    real = runtime._native

    class Spoiling:
        place, wrong = 0, 0.0

        def __getattr__(self, name):
            return getattr(real, name)

        def llama_eval(self, *arguments):
            code = real.llama_eval(*arguments)
            row[self.place] = self.wrong
            return code

    spoiling = Spoiling()
    monkeypatch.setattr(runtime, "_native", spoiling)
    for spoiling.place in (0, 200, 511):
        for spoiling.wrong in (math.nan, math.inf):
            with pytest.raises(BackendError):
                runtime.decode([Feed(0, [5])])
    spoiling.wrong = -math.inf  # a distribution all the same: the token is impossible
    runtime.decode([Feed(0, [5])])


def test_an_evaluation_that_reports_failure_empties_the_sequence(runtime, monkeypatch):
    feed_all(runtime, 0, [5, 6])
    monkeypatch.setattr(
        runtime, "_native", type("Failing", (), {"llama_eval": staticmethod(lambda *_: 1)})()
    )
    with pytest.raises(BackendError, match="returned 1") as caught:
        runtime.decode([Feed(0, [5])])
    assert caught.value.failed == (0,)
    assert runtime.length(0) == 0


# Embeddings ---------------------------------------------------------------------------------------


def test_an_embedding_is_a_unit_vector_of_its_own(runtime):
    runtime.decode([Feed(0, IDS[:9], "embedding")])
    vector = runtime.embed(0)
    assert vector.shape == (64,)
    assert vector.dtype == np.float32
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-6)
    copy = vector.copy()
    runtime.decode([Feed(0, [11], "embedding")])
    assert np.array_equal(vector, copy)
    assert not np.allclose(runtime.embed(0), copy)


def test_an_embedding_is_the_hidden_state_behind_the_logits(folder):
    path = make_llama(folder / "f32.gguf")
    draft = llama_draft()
    output = np.frombuffer(b"".join(draft.tensor("output.weight").data()), np.float32)
    runtime = load(path, options(ctx_len=256, n_parallel=2))
    runtime.decode([Feed(0, IDS, "embedding"), Feed(1, IDS)])
    hidden = output.reshape(512, 64) @ runtime.embed(0).astype(np.float64)
    logits = runtime.logits(1).astype(np.float64)
    runtime.close()
    assert np.corrcoef(hidden, logits)[0, 1] > 0.9999


def test_no_embedding_without_asking(runtime):
    with pytest.raises(InvalidRequest, match="no embedding"):
        runtime.embed(0)
    runtime.decode([Feed(0, [5])])
    with pytest.raises(InvalidRequest, match="no embedding"):
        runtime.embed(0)


def test_a_model_loaded_without_embeddings_refuses_them(tiny):
    runtime = load(tiny, options(embedding=False))
    assert runtime.capabilities == {"generate"}
    with pytest.raises(Unsupported):
        runtime.decode([Feed(0, [5], "embedding")])
    assert runtime.length(0) == 0
    runtime.close()


def test_an_embedding_without_direction_is_a_failure(folder):
    draft = llama_draft()
    tensor = draft.tensor("output_norm.weight")
    tensor.data = lambda: [np.zeros(64, np.float32).tobytes()]
    runtime = load(draft.write(folder / "zero.gguf"), options())
    assert runtime.capabilities == {"generate", "embed"}
    runtime.decode([Feed(0, [5], "embedding")])
    with pytest.raises(BackendError) as caught:
        runtime.embed(0)
    assert caught.value.failed == (0,)
    assert runtime.length(0) == 0
    runtime.close()


# What is reported ---------------------------------------------------------------------------------


def test_the_report_says_what_loading_came_to(runtime, tiny):
    report = runtime.report
    assert (report.backend, report.threads, report.gpu_layers) == ("ctransformers", 1, 0)
    assert report.library == cpu_variant(installed_variants()).name
    assert report.memory_bytes > tiny.stat().st_size
    assert report.notes == ()
    assert (runtime.n_seq, runtime.n_ctx, runtime.n_batch) == (4, 128, 64)


def test_a_context_beyond_the_trained_length_is_cut_and_said(tiny):
    runtime = load(tiny, options(ctx_len=4096, n_parallel=2))
    runtime.close()
    assert runtime.n_ctx == 512
    (note,) = runtime.report.notes
    assert "512" in note
    assert "2048" in note


def test_a_slower_library_is_said(tiny, monkeypatch):
    monkeypatch.setattr(
        "nitrolib.backends.library.cpu_features", lambda: frozenset({"avx", "f16c"})
    )
    runtime = load(tiny, options())
    slow = feed_all(runtime, 0, IDS)
    runtime.close()
    assert runtime.report.library == "avx"
    assert "lacks AVX2" in runtime.report.notes[0]
    assert np.abs(slow - raw_logits(tiny, IDS)).max() < 0.3


def test_batch_size_is_half_of_what_the_scratch_is_made_for(runtime):
    info = runtime.info
    sizes = [backend.batch_size(n_ctx, info) for n_ctx in (1, 2, 3, 64, 512, 4096)]
    assert sizes == [1, 1, 1, 32, 256, 256]
