"""The pool against a plain model of it: whatever is loaded, leased, unloaded and left alone in
whatever order, both hold the same models, and nothing busy was ever taken away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from support.fake_models import Clock, House

from nitrolib.backends import LoadOptions
from nitrolib.errors import Conflict, ModelAlreadyLoaded, ModelLoadError, ModelNotLoaded, NitroError
from nitrolib.models import ModelPool

KEYS = st.sampled_from("abcd")
SELDOM = st.sampled_from([False, False, False, False, True])
IDLE_S = 10.0


@dataclass
class Plain:
    """A loaded model in the plain model of the pool."""

    ctx_len: int
    provisional: bool
    used: float
    leases: list[Any] = field(default_factory=list)
    running: bool = False

    @property
    def busy(self) -> bool:
        return bool(self.leases) or self.running


class PoolMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize(max_loaded=st.integers(1, 3))
    def begin(self, max_loaded: int) -> None:
        self.house, self.clock, self.max_loaded = House(), Clock(), max_loaded
        self.broken: set[str] = set()
        self.house.before_load = self.before_load
        self.pool = ModelPool(
            max_loaded=max_loaded,
            idle_s=IDLE_S,
            make_engine=self.house.engine,
            check=lambda _path, _backend: None,
            clock=self.clock,
        )
        self.pool._stop.set()  # the test sweeps itself
        self.plain: dict[str, Plain] = {}  # the one loaded last, last

    def before_load(self, path: str) -> None:
        if path in self.broken:
            raise ModelLoadError("broken")

    # ---- what the plain model expects of a load ------------------------------------------------

    def expect(
        self, key: str, ctx_len: int, evict: bool, exist_ok: bool
    ) -> type[NitroError] | None:
        """Changes the plain model as a load would, up to the load itself; or the error."""
        plain = self.plain
        if key in plain:
            mine = plain[key]
            if not exist_ok and not mine.provisional:
                return ModelAlreadyLoaded
            if mine.ctx_len == ctx_len:
                plain[key] = plain.pop(key)
                return None
            if not evict and not mine.provisional:
                return ModelAlreadyLoaded
            if mine.busy:
                return Conflict
            del plain[key]
        for other in [k for k, one in plain.items() if one.provisional and not one.busy]:
            del plain[other]
        if len(plain) >= self.max_loaded:
            idle = [k for k, one in plain.items() if not one.busy]
            if not evict:
                return ModelAlreadyLoaded
            if not idle:
                return Conflict
            del plain[min(idle, key=lambda k: plain[k].used)]
        return None

    @rule(
        target=leases,
        key=KEYS,
        ctx_len=st.sampled_from([64, 128]),
        evict=st.sampled_from([True, True, False]),
        exist_ok=st.sampled_from([True, True, False]),
        keep=SELDOM,
        provisional=st.integers(0, 4),
    )
    def load(
        self, key: str, ctx_len: int, evict: bool, exist_ok: bool, keep: bool, provisional: int
    ) -> Any:
        asked = LoadOptions(ctx_len=ctx_len, provisional=provisional == 0 and ctx_len == 64)
        path = f"/{key}.gguf"
        before = {k: one for k, one in self.plain.items() if one.busy}
        # The options are equal only if `provisional` is too: the plain model keeps it in ctx_len.
        told = ctx_len + asked.provisional
        error = self.expect(key, told, evict, exist_ok)
        fails = error or (ModelLoadError if path in self.broken and key not in self.plain else None)
        arguments: Any = (key, path, asked)
        if fails is not None:
            with pytest.raises(fails):
                self.pool.load(*arguments, evict=evict, exist_ok=exist_ok)
            assert all(k in self.plain for k in before)
            return multiple()
        one = self.plain.setdefault(key, Plain(told, asked.provisional, self.clock.now))
        one.used = self.clock.now
        assert all(k in self.plain for k in before)
        lease = self.pool.open(*arguments, evict=evict, exist_ok=exist_ok)
        if not keep:
            lease.close()
            return multiple()
        one.leases.append(lease)
        return (key, lease)

    @rule(target=leases, key=st.none() | KEYS, keep=SELDOM)
    def lease(self, key: str | None, keep: bool) -> Any:
        name = key if key is not None else next(reversed(self.plain), None)
        if name not in self.plain:
            with pytest.raises(ModelNotLoaded):
                self.pool.lease(key)
            return multiple()
        lease = self.pool.lease(key)
        assert lease.seat.key == name
        self.plain[name].used = self.clock.now
        if not keep:
            lease.close()
            return multiple()
        self.plain[name].leases.append(lease)
        return (name, lease)

    @rule(lease=consumes(leases))
    def give_back(self, lease: Any) -> None:
        _, held = lease
        held.close()
        for one in self.plain.values():
            if held in one.leases:
                one.leases.remove(held)
                one.used = self.clock.now

    @rule(key=st.none() | KEYS)
    def unload(self, key: str | None) -> None:
        name = key if key is not None else next(reversed(self.plain), "")
        assert self.pool.unload(key) is (self.plain.pop(name, None) is not None)

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def requests_come_and_go(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.plain)))
        seat = self.pool.get(key)
        assert seat is not None
        one = self.plain[key]
        one.running = not one.running
        seat.engine.running = int(one.running)  # type: ignore[attr-defined]

    @rule(seconds=st.sampled_from([1, 4, 11]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def sweep(self) -> None:
        stale = {
            k
            for k, one in self.plain.items()
            if not one.busy and self.clock.now - one.used >= IDLE_S
        }
        assert {*self.pool.sweep()} == stale
        for key in stale:
            del self.plain[key]
        for one in self.plain.values():
            if one.busy:
                one.used = self.clock.now

    @rule(key=KEYS)
    def a_file_breaks_or_is_mended(self, key: str) -> None:
        self.broken ^= {f"/{key}.gguf"}

    @invariant()
    def both_hold_the_same(self) -> None:
        if not hasattr(self, "pool"):
            return
        assert [seat.key for seat in self.pool.seats()] == [*reversed(self.plain)]
        assert sorted(self.house.loaded) == sorted(f"/{key}.gguf" for key in self.plain)
        assert self.house.most <= self.max_loaded
        for seat in self.pool.seats():
            assert seat.busy is self.plain[seat.key].busy
            assert seat.leases == len(self.plain[seat.key].leases)

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()
            assert self.house.loaded == []


PoolMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestPool = PoolMachine.TestCase
