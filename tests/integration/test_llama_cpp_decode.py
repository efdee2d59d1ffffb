"""Evaluation through llama-cpp-python: right numbers, shared batches, and every argument checked
before native code."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from support.gguf_maker import make_llama
from support.llama_peer import peer_greedy, peer_logits
from support.llama_runtime import CLOSE, IDS, feed_all, greedy, open_llama

from nitrolib.backends import Feed, LoadOptions, load
from nitrolib.backends.base import NoRoom
from nitrolib.errors import BackendError, InvalidRequest, ModelNotLoaded, Unsupported


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("llama_cpp")


@pytest.fixture(scope="module")
def tiny(folder):
    return make_llama(folder / "tiny.gguf")


@pytest.fixture(scope="module")
def shared_runtime(tiny):
    runtime = open_llama(tiny, ctx_len=1024, n_parallel=8, lookup=3)
    yield runtime
    runtime.close()


@pytest.fixture
def runtime(shared_runtime):
    yield shared_runtime
    for seq in range(shared_runtime.n_seq):
        shared_runtime.keep(seq, 0)


@pytest.fixture
def no_native_decode(runtime, monkeypatch):
    """Fails the test if native code is asked to evaluate."""

    def refuse(*_):
        raise AssertionError("native code was called")

    monkeypatch.setattr(runtime._native, "decode", refuse)


# Right numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("quant", ["F32", "F16", "Q8_0"])
def test_logits_are_those_of_llama_cpp_python(folder, quant):
    path = make_llama(folder / f"{quant}.gguf", quant=quant)
    ours = open_llama(path, flash_attention=True)
    theirs = peer_logits(path, IDS)
    np.testing.assert_allclose(feed_all(ours, 0, IDS), theirs[-1], atol=CLOSE)
    ours.close()


def test_logits_are_those_of_ctransformers_to_rounding(tiny):
    other = load(tiny, LoadOptions(ctx_len=256, threads=1, ngl=0), "ctransformers")
    ours = open_llama(tiny)
    # Keys and values are 16-bit floats on both sides, rounded at different places.
    np.testing.assert_allclose(feed_all(ours, 0, IDS), feed_all(other, 0, IDS), atol=0.02)
    ours.close()
    other.close()


def test_greedy_tokens_are_those_of_llama_cpp_python(tiny, runtime):
    feed_all(runtime, 0, IDS)
    assert greedy(runtime, 0, 40) == peer_greedy(tiny, IDS, 40)


def test_chunks_of_a_prompt_give_the_same_logits(runtime):
    whole = feed_all(runtime, 0, IDS)
    for seq, step in ((1, 1), (2, 7), (3, 32)):
        np.testing.assert_allclose(feed_all(runtime, seq, IDS, step), whole, atol=CLOSE)


def test_a_sequence_in_a_full_batch_gives_the_tokens_it_gives_alone(runtime):
    prompts = [IDS[: 5 + 4 * seq] for seq in range(8)]
    alone = []
    for prompt in prompts:
        feed_all(runtime, 0, prompt)
        alone.append(greedy(runtime, 0, 12))
        runtime.keep(0, 0)
    runtime.decode([Feed(seq, prompt) for seq, prompt in enumerate(prompts)])
    together = [[] for _ in prompts]
    for _ in range(12):
        for seq, made in enumerate(together):
            made.append(int(runtime.logits(seq).argmax()))
        runtime.decode([Feed(seq, (made[-1],)) for seq, made in enumerate(together)])
    assert together == alone


def test_prompt_chunks_and_single_tokens_share_a_decode(runtime):
    first = feed_all(runtime, 0, IDS)
    runtime.decode([Feed(1, IDS[:-1], "none")])
    # A chunk without output between two sequences that want some: rows must not be mixed up.
    runtime.decode([Feed(1, (IDS[-1],)), Feed(2, IDS[:10], "none"), Feed(3, IDS)])
    np.testing.assert_allclose(runtime.logits(1), first, atol=CLOSE)
    np.testing.assert_allclose(runtime.logits(3), first, atol=CLOSE)
    with pytest.raises(InvalidRequest, match="no such output"):
        runtime.logits(2)
    assert [runtime.length(seq) for seq in range(4)] == [44, 44, 10, 44]


# Going on where nothing has changed ---------------------------------------------------------------

SEQUENCES = (4, 0, 2)


def test_to_repeat_is_to_decode_a_token_each(runtime):
    steps = [[7, 8, 9], [30, 31, 32], [11, 12, 13]]

    def run(go_on):
        for seq in SEQUENCES:
            runtime.keep(seq, 0)
            runtime.decode([Feed(seq, IDS[: 9 + seq])])
        rows = []
        for step, tokens in enumerate(steps):
            feeds = [Feed(seq, (token,)) for seq, token in zip(SEQUENCES, tokens, strict=True)]
            found = go_on(tokens) if step else runtime.decode(feeds)
            rows.append(np.array([runtime.logits(seq) for seq in SEQUENCES]))
            if found is not None:
                np.testing.assert_array_equal(np.array(found), rows[-1])
        return rows

    def decode(tokens):
        runtime.decode([Feed(seq, (one,)) for seq, one in zip(SEQUENCES, tokens, strict=True)])

    np.testing.assert_array_equal(run(runtime.repeat), run(decode))
    assert [runtime.length(seq) for seq in SEQUENCES] == [16, 12, 14]


@pytest.mark.parametrize(
    "between",
    [
        lambda runtime: runtime.keep(1, 1),
        lambda runtime: runtime.copy(0, 1, 1),
        lambda runtime: runtime.shift(0, 0, 1),
        lambda runtime: runtime.restore(1, runtime.save(0), [7, 9]),
        lambda runtime: runtime.decode([Feed(0, (7, 8))]),
        lambda runtime: runtime.decode([Feed(0, (7,), "none")]),
        lambda runtime: runtime.decode([Feed(0, (7,), "every")]),
        lambda runtime: [runtime.decode([Feed(seq, (7,))]) for seq in (0, 1)],
    ],
)
def test_after_a_change_there_is_nothing_to_repeat(runtime, between, monkeypatch):
    runtime.decode([Feed(0, (7,)), Feed(1, (8,))])
    runtime.repeat([9, 9])
    between(runtime)
    monkeypatch.setattr(runtime._native, "decode", None)
    with pytest.raises(InvalidRequest, match="cannot follow"):
        runtime.repeat([9, 9])


@pytest.mark.parametrize("wrong", [[1], [1, 2, 3], [], [1, -1], [1, 512], [1, 2.0], [1, None]])
def test_wrong_tokens_are_refused_and_the_right_ones_go_on(runtime, monkeypatch, wrong):
    runtime.decode([Feed(0, (7,)), Feed(1, (8,))])
    with monkeypatch.context() as patch:
        patch.setattr(runtime._native, "decode", None)
        with pytest.raises(InvalidRequest):
            runtime.repeat(wrong)
    runtime.repeat([5, 6])
    assert (runtime.length(0), runtime.length(1)) == (2, 2)


def test_a_full_context_repeats_nothing(runtime, monkeypatch):
    feed_all(runtime, 0, [3] * (runtime.n_ctx - 2))
    runtime.decode([Feed(0, (7,))])
    runtime.repeat([8])
    monkeypatch.setattr(runtime._native, "decode", None)
    with pytest.raises(InvalidRequest, match="cannot follow"):
        runtime.repeat([9])


@pytest.mark.parametrize("code", [1, -1, -3])
def test_a_repeat_that_fails_ends_as_a_decode_that_fails(runtime, monkeypatch, code):
    runtime.decode([Feed(0, (7,)), Feed(1, (8,))])
    with monkeypatch.context() as patch:
        patch.setattr(runtime._native, "decode", lambda *_: code)
        with pytest.raises(BackendError) as raised:
            runtime.repeat([5, 6])
    if code == 1:
        assert isinstance(raised.value, NoRoom)
        assert (runtime.length(0), runtime.length(1)) == (1, 1)
        runtime.decode([Feed(0, (5,)), Feed(1, (6,))])
    else:
        assert raised.value.failed == (0, 1)
        assert (runtime.length(0), runtime.length(1)) == (0, 0)
    with pytest.raises(InvalidRequest, match="cannot follow"):
        runtime.repeat([5])


def test_every_row_is_that_of_the_token_fed(runtime):
    singly = []
    for token in IDS[:6]:
        runtime.decode([Feed(0, (token,))])
        singly.append(runtime.logits(0).copy())
    runtime.decode([Feed(1, IDS[:9]), Feed(2, IDS[:6], "every"), Feed(3, IDS[:3])])
    np.testing.assert_allclose(runtime.rows(2), singly, atol=CLOSE)
    np.testing.assert_allclose(runtime.logits(2), singly[-1], atol=CLOSE)
    np.testing.assert_allclose(runtime.logits(3), singly[2], atol=CLOSE)


def test_more_rows_than_there_is_room_for_are_refused(runtime, no_native_decode):
    assert runtime.n_outputs == 32
    with pytest.raises(InvalidRequest, match="33 rows") as caught:
        runtime.decode([Feed(0, IDS[:32], "every"), Feed(1, IDS[:5])])
    assert caught.value.field == "output"


def test_rolling_back_equals_a_fresh_evaluation(runtime):
    fresh = feed_all(runtime, 0, [*IDS[:20], 9, 8, 7])
    feed_all(runtime, 1, IDS)
    assert runtime.keep(1, 20) == 20
    assert runtime.length(1) == 20
    np.testing.assert_allclose(feed_all(runtime, 1, [9, 8, 7]), fresh, atol=CLOSE)
    assert runtime.keep(1, 0) == 0
    np.testing.assert_allclose(feed_all(runtime, 1, [*IDS[:20], 9, 8, 7]), fresh, atol=CLOSE)


def test_a_copied_prefix_serves_like_an_evaluated_one(runtime):
    fresh = feed_all(runtime, 0, [*IDS[:20], 9, 8, 7])
    feed_all(runtime, 1, IDS)
    runtime.decode([Feed(2, IDS[:5])])
    for target in (2, 3):
        runtime.copy(1, target, 20)
        assert runtime.length(target) == 20
        np.testing.assert_allclose(feed_all(runtime, target, [9, 8, 7]), fresh, atol=CLOSE)
    # The giver is as it was, and outlives no more than it should.
    assert runtime.length(1) == len(IDS)
    runtime.keep(1, 0)
    runtime.keep(2, 20)
    np.testing.assert_allclose(feed_all(runtime, 2, [9, 8, 7]), fresh, atol=CLOSE)


def test_nothing_is_copied_of_an_empty_sequence(runtime):
    feed_all(runtime, 1, IDS)
    runtime.copy(0, 1, 0)
    assert runtime.length(1) == 0


# Refused before native code -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feeds", "field"),
    [
        ([Feed(8, (5,))], "seq"),
        ([Feed(-1, (5,))], "seq"),
        ([Feed(0, (5,)), Feed(0, (6,))], "seq"),
        ([Feed(0, ())], "tokens"),
        ([Feed(0, [5] * 129)], "tokens"),
        ([Feed(seq, [5] * 100) for seq in range(6)], "tokens"),
        ([Feed(0, (512,))], "tokens"),
        ([Feed(0, (-1,))], "tokens"),
        ([Feed(0, (5, 512))], "tokens"),
        ([Feed(0, (5, -1))], "tokens"),
        ([Feed(0, (5, 2**31))], "tokens"),
        ([Feed(0, (5, 2**70))], "tokens"),
        ([Feed(0, (5.0,))], "tokens"),
        ([Feed(0, (5, 5.5))], "tokens"),
        ([Feed(0, ("5",))], "tokens"),
        ([Feed(0, (None, 5))], "tokens"),
        ([Feed(0, np.array([5, 512]))], "tokens"),
        ([Feed(0, np.array([5, -3], np.int64))], "tokens"),
        ([Feed(0, np.array([5, 2**32 + 5], np.int64))], "tokens"),
        ([Feed(0, np.array([5.0, 6.0]))], "tokens"),
        ([Feed(0, np.array([[5], [6]]))], "tokens"),
        ([Feed(0, (5,), "embedding")], "output"),
        # One wrong feed among right ones.
        ([Feed(1, IDS), Feed(2, (512,))], "tokens"),
    ],
)
def test_a_wrong_feed_is_refused_and_nothing_evaluated(runtime, no_native_decode, feeds, field):
    with pytest.raises(InvalidRequest) as caught:
        runtime.decode(feeds)
    assert caught.value.field == field
    assert caught.value.allowed
    assert [runtime.length(seq) for seq in range(8)] == [0] * 8


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda ids: np.array(ids, np.uint16)])
def test_ids_may_come_in_any_sequence_of_whole_numbers(runtime, kind):
    expected = feed_all(runtime, 0, IDS)
    np.testing.assert_allclose(feed_all(runtime, 1, kind(IDS)), expected, atol=CLOSE)


def test_a_decode_without_feeds_does_nothing(runtime, no_native_decode):
    runtime.decode([])


def test_a_full_context_takes_no_more(runtime, no_native_decode):
    runtime._sequences[0].n_past = runtime.n_ctx
    with pytest.raises(InvalidRequest, match="128") as caught:
        runtime.decode([Feed(0, (5,))])
    assert "no room" in caught.value.allowed


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.keep(0, 1),
        lambda r: r.keep(0, -1),
        lambda r: r.keep(8, 0),
        lambda r: r.length(8),
        lambda r: r.logits(0),
        lambda r: r.rows(0),
        lambda r: r.copy(0, 1, 1),
        lambda r: r.copy(0, 0, 0),
        lambda r: r.copy(0, 8, 0),
        lambda r: r.copy(8, 0, 0),
        lambda r: r.copy(0, 1, -1),
    ],
)
def test_a_wrong_argument_is_refused(runtime, call):
    with pytest.raises(InvalidRequest):
        call(runtime)


def test_logits_are_gone_after_a_roll_back_and_a_feed_without_output(runtime):
    feed_all(runtime, 0, IDS)
    runtime.keep(0, 3)
    with pytest.raises(InvalidRequest, match="no such output"):
        runtime.logits(0)
    runtime.decode([Feed(0, (5,), "none")])
    with pytest.raises(InvalidRequest, match="no such output"):
        runtime.logits(0)


def test_embeddings_in_the_sequences_of_generations_are_unsupported(runtime):
    with pytest.raises(Unsupported):
        runtime.embed(0)


# Views and failures -------------------------------------------------------------------------------


def test_logits_are_a_view_that_may_be_written_to(runtime):
    runtime.decode([Feed(0, IDS), Feed(1, IDS)])
    view = runtime.logits(0)
    assert view.dtype == np.float32
    assert view.base is not None
    view[7] = -1.5
    assert runtime.logits(0)[7] == -1.5
    assert runtime.logits(1)[7] != -1.5


def test_the_logits_never_move(runtime):
    """The library must not allocate them anew for a decode with more rows: views would dangle."""
    runtime.decode([Feed(0, (5,))])
    address = runtime._logits_at
    runtime.decode([Feed(seq, IDS[:4], "every") for seq in range(8)])
    assert runtime._logits_at == address


@pytest.mark.parametrize("code", [-1, -2, -3])
def test_a_failed_evaluation_empties_its_sequences(runtime, monkeypatch, code):
    feed_all(runtime, 0, IDS)
    feed_all(runtime, 1, IDS)
    monkeypatch.setattr(runtime._native, "decode", lambda *_: code)
    with pytest.raises(BackendError, match=str(code)) as caught:
        runtime.decode([Feed(0, (5,))])
    assert caught.value.failed == (0,)
    monkeypatch.undo()
    assert [runtime.length(0), runtime.length(1)] == [0, len(IDS)]
    assert runtime._native.seq_pos_max(runtime._memory, 0) == -1


def test_a_closed_runtime_refuses_everything_and_its_views_stay_readable(tiny):
    runtime = open_llama(tiny)
    view_of = feed_all(runtime, 0, IDS)
    view = runtime.logits(0)
    runtime.close()
    runtime.close()
    gc.collect()
    np.testing.assert_array_equal(view, view_of)
    for call in (
        lambda: runtime.decode([Feed(0, (5,))]),
        lambda: runtime.tokenize("a"),
        lambda: runtime.length(0),
        lambda: runtime.logits(0),
        lambda: runtime.keep(0, 0),
    ):
        with pytest.raises(ModelNotLoaded):
            call()
