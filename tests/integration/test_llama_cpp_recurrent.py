"""A recurrent model: its sequences cannot go back by a part, and nothing pretends that they can."""

from __future__ import annotations

import numpy as np
import pytest
from support.gguf_mamba import mamba_draft
from support.libllama import NativeModel
from support.llama_runtime import CLOSE, IDS, feed_all, greedy, open_llama

from nitrolib.backends import Feed
from nitrolib.backends.base import Interrupted
from nitrolib.errors import Unsupported


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return mamba_draft().write(tmp_path_factory.mktemp("recurrent") / "mamba.gguf")


@pytest.fixture
def runtime(path):
    runtime = open_llama(path, n_parallel=3, ctx_len=600, lookup=4)
    yield runtime
    runtime.close()


def test_it_generates_what_the_library_does(path, runtime):
    with NativeModel(path) as native:
        expected = native.logits(IDS)[-1]
    np.testing.assert_allclose(feed_all(runtime, 0, IDS), expected, atol=CLOSE)
    np.testing.assert_allclose(feed_all(runtime, 1, IDS, 7), expected, atol=CLOSE)


def test_sequences_are_independent(runtime):
    feed_all(runtime, 0, IDS)
    alone = greedy(runtime, 0, 8)
    runtime.keep(0, 0)
    runtime.decode([Feed(0, IDS), Feed(1, IDS[:9]), Feed(2, IDS[:20])])
    made = []
    for _ in range(8):
        made.append(int(runtime.logits(0).argmax()))
        runtime.decode([Feed(0, (made[-1],)), Feed(1, (5,)), Feed(2, (6,))])
    assert made == alone


def test_it_cannot_go_back_by_a_part(runtime):
    assert not {"copy", "shift", "rows"} & runtime.capabilities
    feed_all(runtime, 0, IDS)
    assert runtime.keep(0, len(IDS)) == len(IDS)
    assert runtime.keep(0, 10) == 0
    assert runtime.length(0) == 0
    fresh = feed_all(runtime, 1, IDS[:10])
    np.testing.assert_allclose(feed_all(runtime, 0, IDS[:10]), fresh, atol=CLOSE)
    for call in (lambda: runtime.copy(0, 1, 5), lambda: runtime.shift(0, 2, 4)):
        with pytest.raises(Unsupported):
            call()


def test_rows_are_no_more_than_there_are_sequences(runtime):
    """A state for each row that lookup asks for would be made, and the library asserts on more."""
    assert runtime.n_outputs == 3
    runtime.decode([Feed(seq, IDS) for seq in range(3)])


def test_an_interrupted_decode_tells_what_it_emptied(runtime, monkeypatch):
    feed_all(runtime, 0, IDS)
    decode = runtime._native.decode

    def interrupted(*arguments):
        runtime.interrupt()
        return decode(*arguments)

    monkeypatch.setattr(runtime._native, "decode", interrupted)
    with pytest.raises(Interrupted) as caught:
        runtime.decode([Feed(0, IDS), Feed(1, IDS)])
    monkeypatch.undo()
    assert set(caught.value.emptied) <= {0}
    assert runtime.length(0) == (0 if caught.value.emptied else len(IDS))
    assert runtime.length(1) == 0
    assert feed_all(runtime, 1, IDS).size == 512


def test_a_saved_state_goes_on_elsewhere(runtime):
    feed_all(runtime, 0, IDS)
    state = runtime.save(0)
    expected = greedy(runtime, 0, 8)
    runtime.restore(2, state, IDS)
    runtime.decode([Feed(2, (expected[0],))])
    assert greedy(runtime, 2, 7) == expected[1:]
