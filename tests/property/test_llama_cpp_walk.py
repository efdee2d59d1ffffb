"""Random walks over the sequences of one KV cache: whatever is fed, cut, copied, saved, shifted and
interrupted in whatever order, each sequence is what its record says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.gguf_maker import make_llama
from support.llama_runtime import feed_all, open_llama

from nitrolib.backends import Feed
from nitrolib.backends.base import Interrupted, NoRoom

N_SEQ, N_CTX = 4, 96


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("walk") / "tiny.gguf")


@pytest.fixture(scope="module")
def crowded(path):
    """All sequences together have room for little more than two full ones."""
    runtime = open_llama(path, ctx_len=256, n_parallel=N_SEQ, shared_context=True, lookup=1)
    runtime.n_ctx = N_CTX
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def fresh(path):
    runtime = open_llama(path)
    yield runtime
    runtime.close()


SEQ = st.integers(0, N_SEQ - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("feed"),
            st.lists(st.tuples(SEQ, st.integers(1, 40)), min_size=1, max_size=4, unique_by=min),
        ),
        st.tuples(st.just("keep"), SEQ, st.floats(0, 1)),
        st.tuples(st.just("copy"), SEQ, SEQ, st.floats(0, 1)),
        st.tuples(st.just("shift"), SEQ, st.floats(0, 1), st.floats(0, 1)),
        st.tuples(st.just("move"), SEQ, SEQ),
        st.tuples(st.just("interrupt"), SEQ, st.integers(1, 40)),
    ),
    max_size=25,
)


class Walk:
    """Applies steps to a runtime and to lists of tokens. `exact` are sequences that were never
    shifted: their logits are those of a fresh evaluation."""

    def __init__(self, runtime, seed):
        self.runtime, self.rng = runtime, np.random.default_rng(seed)
        self.held = [[] for _ in range(N_SEQ)]
        self.exact = [True] * N_SEQ
        for seq in range(N_SEQ):
            runtime.keep(seq, 0)

    def tokens(self, count):
        return self.rng.integers(259, 500, count).tolist()

    def feed(self, wanted):
        feeds = {}
        for seq, count in wanted:
            count = min(count, N_CTX - len(self.held[seq]))
            if count > 0:
                feeds.setdefault(seq, self.tokens(count))
        try:
            self.runtime.decode([Feed(seq, ids) for seq, ids in feeds.items()])
        except NoRoom:
            return
        for seq, ids in feeds.items():
            self.held[seq] += ids

    def keep(self, seq, part):
        n = int(part * len(self.held[seq]))
        assert self.runtime.keep(seq, n) == n
        del self.held[seq][n:]
        self.exact[seq] |= not n

    def copy(self, source, target, part):
        if source == target:
            return
        n = int(part * len(self.held[source]))
        self.runtime.copy(source, target, n)
        self.held[target] = self.held[source][:n]
        self.exact[target] = self.exact[source]

    def shift(self, seq, start, end):
        n = len(self.held[seq])
        start, end = sorted((int(start * n), int(end * n)))
        if start == end or self.runtime._shifted:
            return
        self.runtime.shift(seq, start, end)
        self.exact[seq] &= end == n
        del self.held[seq][start:end]

    def move(self, source, target):
        if self.runtime._shifted:
            return
        state = self.runtime.save(source)
        self.runtime.keep(source, 0)
        self.runtime.restore(target, state, self.held[source])
        self.held[source], self.held[target] = [], self.held[source]
        if source == target:
            self.held[target] = self.held[source] = list(self.held[target])
        self.exact[target], self.exact[source] = self.exact[source], source != target

    def interrupt(self, seq, count):
        count = min(count, N_CTX - len(self.held[seq]))
        if count < 1 or self.runtime._shifted:
            return
        decode = self.runtime._native.decode

        def interrupted(*arguments):
            self.runtime.interrupt()
            return decode(*arguments)

        self.runtime._native.decode = interrupted
        try:
            self.runtime.decode([Feed(seq, self.tokens(count))])
        except (Interrupted, NoRoom):
            return
        finally:
            self.runtime._native.decode = decode
        raise AssertionError("the decode was not interrupted")

    def check(self):
        runtime = self.runtime
        for seq, held in enumerate(self.held):
            assert runtime.length(seq) == len(held)
            assert runtime._native.seq_pos_max(runtime._memory, seq) == len(held) - 1
            assert runtime._native.seq_pos_min(runtime._memory, seq) == (0 if held else -1)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_every_sequence_is_what_was_done_to_it(crowded, fresh, steps, seed):
    walk = Walk(crowded, seed)
    for name, *arguments in steps:
        getattr(walk, name)(*arguments)
        walk.check()
    for seq, held in enumerate(walk.held):
        if not walk.exact[seq] or not 0 < len(held) < N_CTX:
            continue
        try:
            crowded.decode([Feed(seq, (7,))])
        except NoRoom:
            continue
        fresh.keep(0, 0)
        expected = feed_all(fresh, 0, [*held, 7])
        np.testing.assert_allclose(crowded.logits(seq), expected, atol=0.02)
