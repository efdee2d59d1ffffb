"""ModelPool: several loaded models, each in an engine of its own. The least recently used idle one
makes room for another, an idle one ends after a while, and a busy one never has to go.

One condition guards the table. Loading and unloading happen outside it, so looking at the pool and
leasing another model never wait for them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import Conflict, InvalidRequest, ModelAlreadyLoaded, ModelNotLoaded, NotEnoughMemory
from .seat import Lease, Seat

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from ..backends.base import LoadOptions
    from ..engine import Engine

__all__ = ["ModelPool", "SeatState"]

SeatState = Literal["loading", "loaded", "unloading"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one call of `load` asks for."""

    key: str
    path: str
    options: LoadOptions
    backend: str
    extra: Any
    evict: bool
    exist_ok: bool

    def fits(self, seat: Seat) -> bool:
        asked = (self.path, self.options, self.backend)
        return asked == (seat.path, seat.options, seat.backend)


class ModelPool:
    """Loaded models by key. Every method may be called from any thread.

    max_loaded: most models that are there at a time, those that are being loaded or unloaded
        included.
    idle_s: seconds after its last use at which an idle model is unloaded; None is never.
    make_engine: makes the engine of a seat; None is `nitrolib.engine.Engine`.
    check: called with path and backend before anything is evicted for a load; raises for a file
        that cannot be loaded, so that it costs no loaded model. None is `nitrolib.backends.choose`.
    clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        max_loaded: int = 1,
        idle_s: float | None = None,
        make_engine: Callable[[], Engine] | None = None,
        check: Callable[[str, str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_numbers(max_loaded, idle_s)
        self.max_loaded = max_loaded
        self.idle_s = idle_s
        self._make_engine = make_engine or _new_engine
        self._check = check or _choose
        self._clock = clock
        self._changed = threading.Condition()
        self._states: dict[str, SeatState] = {}  # in the order of loading, the last one last
        self._seats: dict[str, Seat] = {}  # those of state "loaded" and "unloading"
        self._fixed: Engine | None = None
        self._closed = False
        self._timer: threading.Thread | None = None
        self._stop = threading.Event()

    @classmethod
    def around(cls, engine: Engine, *, key: str | None = None, extra: Any = None) -> Self:
        """A pool whose only seat is *engine*, which stays the caller's: it is loaded and unloaded,
        never closed. A model that is loaded already has the seat, as *key* or else its path."""
        # Its loader may be the caller's own: what it can load is for it to say.
        pool = cls(make_engine=lambda: engine, check=lambda _path, _backend: None)
        pool._fixed = engine
        pool._follow(key, extra)
        return pool

    # ---- looking ---------------------------------------------------------------------------

    @property
    def current(self) -> Seat | None:
        """The model that was loaded last, of those that are there."""
        with self._changed:
            self._follow()
            return self._current()

    def seats(self) -> tuple[Seat, ...]:
        """The loaded models, the one loaded last first."""
        with self._changed:
            self._follow()
            return tuple(
                reversed([self._seats[k] for k, s in self._states.items() if s == "loaded"])
            )

    def state(self, key: str) -> SeatState | None:
        """What becomes of a model; None where it is not there."""
        with self._changed:
            self._follow()
            return self._states.get(key)

    def get(self, key: str) -> Seat | None:
        """The loaded model *key*."""
        with self._changed:
            self._follow()
            return self._seats[key] if self._states.get(key) == "loaded" else None

    # ---- loading ---------------------------------------------------------------------------

    def load(
        self,
        key: str,
        path: str | os.PathLike[str],
        options: LoadOptions | None = None,
        backend: str = "auto",
        *,
        extra: Any = None,
        evict: bool = True,
        exist_ok: bool = True,
    ) -> Seat:
        """Load a model under *key*, and make it the current one.

        A model that is there with the same path, options and backend is returned as it is; with
        other ones it is loaded anew, unless it is busy. Several calls for one key come one after
        another. A full pool evicts the least recently used idle model; without *evict* only a
        provisional one. With too little memory it evicts further idle ones.

        Raises ModelAlreadyLoaded where nothing may give way or, without *exist_ok*, where *key* is
        there; Conflict where all that could are busy; and as Engine.load does, and then *key* is
        not there.
        """
        with self.open(
            key, path, options, backend, extra=extra, evict=evict, exist_ok=exist_ok
        ) as lease:
            return lease.seat

    def open(
        self,
        key: str,
        path: str | os.PathLike[str],
        options: LoadOptions | None = None,
        backend: str = "auto",
        *,
        extra: Any = None,
        evict: bool = True,
        exist_ok: bool = True,
    ) -> Lease:
        """As `load`, and the seat is leased before anybody could evict it."""
        from ..backends.base import LoadOptions

        plan = _Plan(
            key, os.fspath(path), options or LoadOptions(), backend, extra, evict, exist_ok
        )
        with self._changed:
            found = self._step(plan, take=False)
        assert not isinstance(found, Seat)
        if found is None:
            self._check(plan.path, plan.backend)
            found = self._room(plan)
        return self._load(plan) if found is None else found

    def lease(self, key: str | None = None) -> Lease:
        """Use the model *key*, or the current one. Raises ModelNotLoaded."""
        with self._changed:
            self._follow()
            seat = self._current() if key is None else self._seats.get(key)
            if seat is None or self._states.get(seat.key) != "loaded":
                raise ModelNotLoaded(
                    "no model is loaded" if key is None else f"model {key!r} is not loaded"
                )
            return self._lease(seat)

    # ---- unloading -------------------------------------------------------------------------

    def unload(self, key: str | None = None) -> bool:
        """Unload the model *key*, or the current one, busy or not: its requests end with
        Cancelled(reason="unload"). One that is being loaded or unloaded is waited for. False where
        it is not there."""
        with self._changed:
            self._follow()
            name = self._named(key)
            while self._states.get(name) in ("loading", "unloading"):
                self._changed.wait()
                name = self._named(key)
            if self._states.get(name) != "loaded":
                return False
            seat = self._leave(name)
        self._unload(seat, "unload")
        return True

    def sweep(self) -> tuple[str, ...]:
        """Unload every model that has been idle for `idle_s`; returns their keys. A timer does this
        by itself."""
        if self.idle_s is None:
            return ()
        with self._changed:
            self._follow()
            now = self._clock()
            stale = []
            for key, seat in self._seats.items():
                if self._states[key] != "loaded":
                    continue
                if seat.busy:
                    seat.last_used = now
                elif now - seat.last_used >= self.idle_s:
                    stale.append(key)
            leaving = [self._leave(key) for key in stale]
        self._unload_all(leaving, "unload")
        return tuple(stale)

    def close(self) -> None:
        """Unload everything, and load nothing any more; requests end with
        Cancelled(reason="shutdown"). Waits for loads that are under way. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._stop.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: "loading" not in self._states.values())
            leaving = [self._leave(k) for k, s in [*self._states.items()] if s == "loaded"]
        self._unload_all(leaving, "shutdown")
        with self._changed:
            self._changed.wait_for(lambda: not self._states)
            timer = self._timer
        if timer is not None and timer is not threading.current_thread():
            timer.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _room(self, plan: _Plan) -> Lease | None:
        """Take a place, unloading what has to go; or lease what another call has loaded
        meanwhile."""
        while True:
            with self._changed:
                found = self._step(plan, take=True)
            if not isinstance(found, Seat):
                return found
            self._unload(found, "unload")

    # ---- inside; the condition is held unless it says otherwise ------------------------------

    def _named(self, key: str | None) -> str:
        """The key that is meant: for None that of the current model, else of the one that was
        begun last, else ""."""
        if key is not None:
            return key
        current = self._current()
        return current.key if current is not None else next(reversed(self._states), "")

    def _current(self) -> Seat | None:
        for key in reversed(self._states):
            if self._states[key] == "loaded":
                return self._seats[key]
        return None

    def _lease(self, seat: Seat) -> Lease:
        seat.leases += 1
        seat.last_used = self._clock()
        return Lease(seat, self._give_back)

    def _give_back(self, seat: Seat) -> None:
        """Not held."""
        with self._changed:
            seat.leases -= 1
            seat.last_used = self._clock()
            self._changed.notify_all()

    def _there(self, plan: _Plan) -> Lease | None:
        """A lease of the seat that is there already and will do; None where it is to be loaded.
        Waits while the key is being loaded or unloaded."""
        while True:
            self._check_open()
            self._follow()
            state = self._states.get(plan.key)
            if state is None:
                return None
            if state == "loading" and not plan.exist_ok:
                raise ModelAlreadyLoaded("a model is being loaded", path=plan.path)
            if state == "loaded":
                break
            self._changed.wait()
        seat = self._seats[plan.key]
        if not plan.exist_ok and not seat.options.provisional:
            raise ModelAlreadyLoaded(f"{seat.path} is loaded already", path=seat.path)
        if plan.fits(seat):
            self._states[plan.key] = self._states.pop(plan.key)  # the current one now
            return self._lease(seat)
        return None

    def _step(self, plan: _Plan, *, take: bool) -> Lease | Seat | None:
        """What a load has to do next: nothing (a lease of what is there), unload a seat, or load
        into a free place (None). With *take* the seat is marked as leaving, or the place taken;
        without, only the errors matter."""
        while True:
            found = self._there(plan)
            if found is not None:
                return found
            if plan.key in self._states:
                victim: Seat | None = self._replaceable(plan)
            elif (provisional := self._provisional()) is not None:
                victim = provisional
            elif len(self._states) < self.max_loaded:
                if take:
                    self._states[plan.key] = "loading"
                return None
            else:
                victim = self._victim(plan)
            if victim is not None:
                return self._leave(victim.key) if take else None
            self._changed.wait()

    def _replaceable(self, plan: _Plan) -> Seat:
        """The seat of the same key with other options, which is to be loaded anew."""
        seat = self._seats[plan.key]
        if not plan.evict and not seat.options.provisional:
            raise ModelAlreadyLoaded(f"{seat.path} is loaded already", path=seat.path)
        if seat.busy:
            raise Conflict(f"model {seat.key!r} is busy", busy=(seat.key,))
        return seat

    def _provisional(self) -> Seat | None:
        """A model that nobody asked for: it gives way to any load as soon as it is idle."""
        for key, seat in self._seats.items():
            if self._states[key] == "loaded" and seat.options.provisional and not seat.busy:
                return seat
        return None

    def _victim(self, plan: _Plan) -> Seat | None:
        """Who gives way to a load in a full pool; None where somebody is just leaving or coming."""
        loaded = [self._seats[key] for key, state in self._states.items() if state == "loaded"]
        idle = [seat for seat in loaded if not seat.busy] if plan.evict else []
        if idle:
            return min(idle, key=lambda seat: seat.last_used)
        if "unloading" in self._states.values() or (plan.evict and len(loaded) < len(self._states)):
            return None
        if not plan.evict:
            path = loaded[-1].path if loaded else None
            raise ModelAlreadyLoaded(
                f"{path} is loaded; unload it first" if path else "a model is being loaded",
                path=path,
            )
        names = ", ".join(repr(seat.key) for seat in loaded)
        raise Conflict(
            f"no model can make room: busy are {names}", busy=tuple(seat.key for seat in loaded)
        )

    def _leave(self, key: str) -> Seat:
        self._states[key] = "unloading"
        self._changed.notify_all()
        return self._seats[key]

    def _unload(self, seat: Seat, reason: Literal["unload", "shutdown"]) -> None:
        """Free a seat whose state is "unloading". Not held."""
        try:
            if reason == "unload" or self._fixed is not None:
                seat.engine.unload()
            if self._fixed is None:
                seat.engine.close()
        finally:
            self._forget(seat.key)

    def _unload_all(self, seats: list[Seat], reason: Literal["unload", "shutdown"]) -> None:
        """All of them, whatever one of them raises. Not held."""
        with contextlib.ExitStack() as stack:
            for seat in reversed(seats):
                stack.callback(self._unload, seat, reason)

    def _forget(self, key: str) -> None:
        """Not held."""
        with self._changed:
            self._states.pop(key, None)
            self._seats.pop(key, None)
            self._changed.notify_all()

    def _load(self, plan: _Plan) -> Lease:
        """Load into the place that was taken. Not held."""
        seat = None
        try:
            seat = self._loaded(plan)
            with self._changed:
                self._check_open()
                seat.loaded_at = seat.last_used = self._clock()
                self._seats[plan.key] = seat
                del self._states[plan.key]
                self._states[plan.key] = "loaded"
                self._start_timer()
                lease = self._lease(seat)
                self._changed.notify_all()
            return lease
        except BaseException:
            try:
                if seat is not None:
                    seat.engine.unload()
                    self._give_up(seat.engine)
            finally:
                self._forget(plan.key)
            raise

    def _loaded(self, plan: _Plan) -> Seat:
        while True:
            engine = self._make_engine()
            try:
                engine.load(plan.path, options=plan.options, backend=plan.backend)
                return Seat(plan.key, engine, plan.path, plan.options, plan.backend, plan.extra)
            except NotEnoughMemory:
                self._give_up(engine)
                if not (plan.evict and self._evict_one()):
                    raise
            except BaseException:
                self._give_up(engine)
                raise

    def _give_up(self, engine: Engine) -> None:
        if self._fixed is None:
            engine.close()

    def _evict_one(self) -> bool:
        """Unload the least recently used idle model, if there is one. Not held."""
        with self._changed:
            loaded = [self._seats[key] for key, state in self._states.items() if state == "loaded"]
            idle = [seat for seat in loaded if not seat.busy]
            if not idle:
                return False
            seat = self._leave(min(idle, key=lambda seat: seat.last_used).key)
        self._unload(seat, "unload")
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise ModelNotLoaded("the pool is closed and loads no more models")

    def _follow(self, key: str | None = None, extra: Any = None) -> None:
        """A caller's engine may be loaded and unloaded by the caller: the seat follows it."""
        if self._fixed is None or any(state != "loaded" for state in self._states.values()):
            return
        model = self._fixed.status().model
        seat = next(iter(self._seats.values()), None)
        if seat is not None and (model is None or model.path != seat.path):
            del self._states[seat.key], self._seats[seat.key]
            seat = None
        if model is not None and seat is None:
            from ..backends.base import LoadOptions

            options = LoadOptions(
                ctx_len=model.n_ctx * model.n_parallel,
                n_parallel=model.n_parallel,
                provisional=model.provisional,
            )
            name = key or model.path
            seat = Seat(name, self._fixed, model.path, options, model.backend, extra)
            seat.loaded_at = seat.last_used = self._clock()
            self._seats[name], self._states[name] = seat, "loaded"

    def _start_timer(self) -> None:
        if self.idle_s is None or self._timer is not None:
            return
        stop = self._stop
        self._timer = threading.Thread(
            target=_sweep_until,
            args=(stop, weakref.ref(self, lambda _: stop.set()), self.idle_s),
            name="nitro-idle-models",
            daemon=True,
        )
        self._timer.start()


def _sweep_until(
    stop: threading.Event, pool_of: Callable[[], ModelPool | None], idle_s: float
) -> None:
    """Sweep a few times in every `idle_s`, until the pool is closed or gone."""
    while not stop.wait(min(max(idle_s / 4, 0.05), 30.0)):
        pool = pool_of()
        if pool is None:
            return
        try:
            pool.sweep()
        except Exception:  # noqa: BLE001 - the next sweep tries again
            _log.exception("an idle model could not be unloaded")
        del pool


def _new_engine() -> Engine:
    from ..engine import Engine

    return Engine()


def _choose(path: str, backend: str) -> object:
    from .. import backends

    return backends.choose(path, backend)


def _check_numbers(max_loaded: int, idle_s: float | None) -> None:
    if isinstance(max_loaded, bool) or not isinstance(max_loaded, int) or max_loaded < 1:
        raise InvalidRequest(
            f"max_loaded must be a whole number of at least 1, got {max_loaded!r}",
            field="max_loaded",
            value=max_loaded,
            allowed="a whole number, 1 or more",
        )
    if idle_s is not None and not (0 < idle_s < math.inf):
        raise InvalidRequest(
            f"idle_s must be above 0, or None, got {idle_s!r}",
            field="idle_s",
            value=idle_s,
            allowed="seconds above 0, or None for never",
        )
