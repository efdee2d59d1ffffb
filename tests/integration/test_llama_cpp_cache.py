"""The KV cache of llama-cpp-python's sequences: no room, interruption, shift, states."""

from __future__ import annotations

import time

import numpy as np
import pytest
from support.gguf_maker import make_llama
from support.llama_runtime import CLOSE, IDS, feed_all, greedy, open_llama
from support.models import slow_model
from support.waiting import when

from nitrolib.backends import Feed
from nitrolib.backends.base import Interrupted, NoRoom
from nitrolib.errors import InvalidRequest

LONG = [1, *(260 + number % 200 for number in range(199))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tiny(folder):
    return make_llama(folder / "tiny.gguf")


@pytest.fixture(scope="module")
def shared_runtime(tiny):
    runtime = open_llama(tiny, ctx_len=1024, n_parallel=4)
    yield runtime
    runtime.close()


@pytest.fixture
def runtime(shared_runtime):
    yield shared_runtime
    for seq in range(shared_runtime.n_seq):
        shared_runtime.keep(seq, 0)


# No room ------------------------------------------------------------------------------------------


@pytest.fixture
def crowded(tiny):
    """Four slots that may each hold 256 tokens, and together no more than that."""
    runtime = open_llama(tiny, ctx_len=256, n_parallel=4, shared_context=True)
    assert runtime.n_ctx == 256
    yield runtime
    runtime.close()


def test_a_full_cache_is_no_room_and_changes_nothing(crowded):
    before = feed_all(crowded, 0, LONG)
    with pytest.raises(NoRoom) as caught:
        crowded.decode([Feed(0, (5,)), Feed(1, LONG[:100])])
    assert caught.value.retryable
    assert [crowded.length(seq) for seq in range(4)] == [200, 0, 0, 0]
    np.testing.assert_array_equal(crowded.logits(0), before)
    crowded.decode([Feed(1, LONG[:50])])
    crowded.keep(0, 0)
    crowded.decode([Feed(1, LONG[50:]), Feed(2, (5,))])
    assert [crowded.length(seq) for seq in range(4)] == [0, 200, 1, 0]


def test_a_sequence_set_back_goes_on_with_the_same_tokens(crowded, runtime):
    feed_all(runtime, 0, LONG[:100])
    expected = greedy(runtime, 0, 20)
    feed_all(crowded, 0, LONG[:100])
    made = greedy(crowded, 0, 8)
    crowded.keep(0, 0)
    feed_all(crowded, 1, LONG[:200])
    with pytest.raises(NoRoom):
        crowded.decode([Feed(0, [*LONG[:100], *made])])
    crowded.keep(1, 0)
    # All that was fed again, the last token of it to sample from.
    feed_all(crowded, 0, [*LONG[:100], *made])
    assert made + greedy(crowded, 0, 12) == expected


def test_cells_that_are_shared_are_counted_once(crowded):
    feed_all(crowded, 0, LONG)
    for target in (1, 2, 3):
        crowded.copy(0, target, 200)
    crowded.decode([Feed(seq, (5, 6, 7)) for seq in range(4)])
    assert [crowded.length(seq) for seq in range(4)] == [203] * 4


def test_slots_that_share_nothing_always_have_their_context(runtime):
    """Without `shared_context` there is room for every slot in full."""
    for seq in range(4):
        feed_all(runtime, seq, [1, *[260] * 255])
    assert [runtime.length(seq) for seq in range(4)] == [256] * 4


# Interruption -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_path(folder):
    return slow_model(folder)


@pytest.fixture(scope="module")
def slow(slow_path):
    runtime = open_llama(slow_path, ctx_len=4096, n_parallel=2, n_ubatch=64, lookup=1)
    yield runtime
    runtime.close()


def test_an_interrupted_decode_counts_for_nothing(slow):
    prompt = [1, *(260 + number % 200 for number in range(39))]
    whole = feed_all(slow, 0, [*prompt, 9, 8, 7])
    slow.keep(0, 0)
    slow.decode([Feed(0, prompt), Feed(1, prompt[:5])])
    # Within its second or two, after some micro batches.
    when(lambda: slow._stopper._running, lambda: (time.sleep(0.1), slow.interrupt()))
    with pytest.raises(Interrupted) as caught:
        slow.decode([Feed(0, [400] * 300), Feed(1, [401] * 200)])
    assert caught.value.emptied == ()
    assert [slow.length(0), slow.length(1)] == [40, 5]
    # Micro batches that were done before the interrupt are out of the cache again.
    ends = [slow._native.seq_pos_max(slow._memory, seq) for seq in (0, 1)]
    assert ends == [39, 4]
    np.testing.assert_allclose(feed_all(slow, 0, [9, 8, 7]), whole, atol=0.1)  # 8-bit weights
    slow.keep(0, 0)
    slow.keep(1, 0)


def test_an_interrupt_without_a_decode_does_nothing(slow):
    slow.interrupt()
    slow.decode([Feed(0, (5,))])
    assert slow.length(0) == 1
    slow.keep(0, 0)


def test_closing_ends_a_running_decode(slow_path):
    runtime = open_llama(slow_path, ctx_len=4096)
    when(lambda: runtime._stopper._running, runtime.close)
    with pytest.raises(Interrupted):
        runtime.decode([Feed(0, [400] * 512)])


def test_a_decode_that_rotates_shifted_keys_is_finished(slow, monkeypatch):
    """Ended half-way it would leave keys rotated in some layers and not in others."""
    feed_all(slow, 0, LONG)
    slow.shift(0, 10, 50)
    decode = slow._native.decode

    def interrupted_meanwhile(*arguments):
        slow.interrupt()
        return decode(*arguments)

    monkeypatch.setattr(slow._native, "decode", interrupted_meanwhile)
    slow.decode([Feed(0, (5,))])
    assert slow.length(0) == 161
    with pytest.raises(Interrupted):
        slow.decode([Feed(0, (6,))])
    assert slow.length(0) == 161
    slow.keep(0, 0)


# Shift --------------------------------------------------------------------------------------------


def shifted_alone(runtime, seq, ids, start, end):
    """Logits of a shifted sequence that shares no cell."""
    feed_all(runtime, seq, ids)
    runtime.shift(seq, start, end)
    return feed_all(runtime, seq, [9])


def test_a_shift_forgets_the_middle_and_moves_the_rest(runtime):
    ids = [1, *range(260, 300)]
    feed_all(runtime, 0, ids)
    runtime.shift(0, 10, 20)
    assert runtime.length(0) == 31
    native, memory = runtime._native, runtime._memory
    assert native.seq_pos_max(memory, 0) == 30
    shifted = feed_all(runtime, 0, [9])
    # The values were computed with the forgotten tokens in view; positions are right, so it is
    # nearer to an evaluation without them than to one with the rest left where it was.
    kept = [*ids[:10], *ids[20:], 9]
    fresh = feed_all(runtime, 1, kept)
    other = feed_all(runtime, 2, [*ids, 9])
    assert abs(shifted - fresh).mean() < abs(shifted - other).mean()


def test_a_shift_up_to_the_end_is_exact(runtime):
    ids = [1, *range(260, 300)]
    feed_all(runtime, 0, ids)
    runtime.shift(0, 10, 41)
    fresh = feed_all(runtime, 1, [*ids[:10], 9])
    np.testing.assert_allclose(feed_all(runtime, 0, [9]), fresh, atol=CLOSE)


def test_a_shift_leaves_those_alone_that_share_its_cells(runtime):
    ids = [1, *range(260, 300)]
    alone = shifted_alone(runtime, 3, ids, 10, 20)
    expected = feed_all(runtime, 2, [*ids[:35], 9])
    feed_all(runtime, 0, ids)
    runtime.copy(0, 1, 35)
    runtime.shift(0, 10, 20)
    np.testing.assert_allclose(feed_all(runtime, 1, [9]), expected, atol=CLOSE)
    np.testing.assert_allclose(feed_all(runtime, 0, [9]), alone, atol=CLOSE)
    # And the other way round: the one that was copied to shifts.
    runtime.keep(0, 0)
    feed_all(runtime, 0, ids)
    runtime.copy(0, 1, 41)
    runtime.shift(1, 10, 20)
    np.testing.assert_allclose(feed_all(runtime, 1, [9]), alone, atol=CLOSE)
    runtime.keep(0, 35)
    np.testing.assert_allclose(feed_all(runtime, 0, [9]), expected, atol=CLOSE)


def test_a_shift_behind_the_shared_cells_copies_nothing(runtime, monkeypatch):
    ids = [1, *range(260, 300)]
    alone = shifted_alone(runtime, 3, ids, 20, 30)
    feed_all(runtime, 0, ids)
    runtime.copy(0, 1, 20)
    monkeypatch.setattr(runtime, "_own_cells", None)
    runtime.shift(0, 20, 30)
    np.testing.assert_allclose(feed_all(runtime, 0, [9]), alone, atol=CLOSE)


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (3, 3), (5, 3), (0, 45), (45, 46)])
def test_a_range_that_is_not_there_is_refused(runtime, start, end):
    feed_all(runtime, 0, IDS)
    with pytest.raises(InvalidRequest):
        runtime.shift(0, start, end)
    assert runtime.length(0) == len(IDS)


# States -------------------------------------------------------------------------------------------


def test_a_saved_sequence_goes_on_anywhere(runtime, tiny):
    feed_all(runtime, 0, IDS)
    state = runtime.save(0)
    expected = greedy(runtime, 0, 12)
    runtime.restore(2, state, IDS)
    assert runtime.length(2) == len(IDS)
    with pytest.raises(InvalidRequest, match="no such output"):
        runtime.logits(2)
    runtime.decode([Feed(2, (expected[0],))])
    assert greedy(runtime, 2, 11) == expected[1:]
    runtime.keep(2, 20)
    np.testing.assert_allclose(
        feed_all(runtime, 2, [9]), feed_all(runtime, 3, [*IDS[:20], 9]), atol=CLOSE
    )
    other = open_llama(tiny, ctx_len=512, n_parallel=1)
    other.restore(0, state, IDS)
    other.decode([Feed(0, (expected[0],))])
    assert greedy(other, 0, 11) == expected[1:]
    other.close()


def test_an_empty_sequence_is_saved_too(runtime):
    state = runtime.save(0)
    feed_all(runtime, 1, IDS)
    runtime.restore(1, state, [])
    assert runtime.length(1) == 0


def damaged(state: bytes) -> list[bytes]:
    middle = bytearray(state)
    middle[len(state) // 2] ^= 1
    return [b"", state[:20], state[:-1], state + b"\0", bytes(middle), b"X" + state[1:]]


def test_a_damaged_state_is_refused_and_the_sequence_empty(runtime, monkeypatch):
    feed_all(runtime, 0, IDS)
    state = runtime.save(0)
    monkeypatch.setattr(runtime._native, "state_set", None)
    for wrong in damaged(state):
        feed_all(runtime, 1, IDS)
        with pytest.raises(InvalidRequest) as caught:
            runtime.restore(1, wrong, IDS)
        assert caught.value.field == "state"
        assert runtime.length(1) == 0


def test_a_state_of_other_tokens_or_another_model_is_refused(runtime, folder):
    feed_all(runtime, 0, IDS)
    state = runtime.save(0)
    with pytest.raises(InvalidRequest, match="44 tokens, and 43"):
        runtime.restore(1, state, IDS[1:])
    other = open_llama(make_llama(folder / "other.gguf", quant="F16"))
    with pytest.raises(InvalidRequest, match="another model"):
        other.restore(0, state, IDS)
    other.close()
    small = open_llama(runtime.info.path, ctx_len=32)
    with pytest.raises(InvalidRequest):
        small.restore(0, state, IDS)
    small.close()


def test_a_state_the_library_refuses_leaves_the_sequence_empty(runtime, monkeypatch):
    feed_all(runtime, 0, IDS)
    state = runtime.save(0)
    monkeypatch.setattr(runtime._native, "state_set", lambda *_: 0)
    with pytest.raises(InvalidRequest, match="refuses"):
        runtime.restore(1, state, IDS)
    assert runtime.length(1) == 0


def test_a_sequence_is_not_saved_between_a_shift_and_the_decode_that_rotates_it(runtime):
    feed_all(runtime, 0, IDS)
    runtime.shift(0, 5, 10)
    with pytest.raises(InvalidRequest, match="shifted"):
        runtime.save(0)
    runtime.decode([Feed(0, (5,))])
    assert runtime.save(0)
