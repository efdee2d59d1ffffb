"""The pool: who has to go, who never does, and that nobody waits for the load of another."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from support.fake_models import Clock, House
from support.waiting import until

from nitrolib.backends import LoadOptions
from nitrolib.errors import (
    Conflict,
    InvalidRequest,
    ModelAlreadyLoaded,
    ModelFileError,
    ModelLoadError,
    ModelNotLoaded,
    NotEnoughMemory,
)
from nitrolib.models import ModelPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nitrolib.models import Seat


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made(house: House, clock: Clock) -> Iterator[Callable[..., ModelPool]]:
    """Makes pools of fake engines, closed at the end."""
    pools = []

    def make(max_loaded: int = 1, **fields: Any) -> ModelPool:
        fields = {"check": lambda _path, _backend: None, **fields}
        pools.append(
            ModelPool(max_loaded=max_loaded, make_engine=house.engine, clock=clock, **fields)
        )
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    assert house.loaded == []
    assert all(engine.closed for engine in house.engines)


def keys(seats: tuple[Seat, ...]) -> list[str]:
    return [seat.key for seat in seats]


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


class Held:
    """A gate for House.before_load: the load waits at it until `go`."""

    def __init__(self, house: House, path: str) -> None:
        self.arrived, self.go = threading.Event(), threading.Event()
        self.path = path
        house.before_load = self

    def __call__(self, path: str) -> None:
        if path == self.path:
            self.arrived.set()
            assert self.go.wait(60)


# ---- loading and leasing -------------------------------------------------------------------------


def test_a_model_is_loaded_once_and_found_by_its_key(made: Any, house: House) -> None:
    pool = made()
    options = LoadOptions(ctx_len=64)
    seat = pool.load("a", "/a.gguf", options, extra="mine")
    assert (seat.key, seat.path, seat.options, seat.extra) == ("a", "/a.gguf", options, "mine")
    assert pool.current is seat
    assert pool.state("a") == "loaded"
    assert pool.state("b") is None
    assert pool.load("a", "/a.gguf", options) is seat
    assert house.loaded == ["/a.gguf"]
    with pool.lease("a") as lease:
        assert lease.engine is seat.engine
        assert seat.busy
    assert not seat.busy


def test_nothing_loaded_cannot_be_leased_or_unloaded(made: Any) -> None:
    pool = made()
    assert pool.current is None
    assert pool.seats() == ()
    assert not pool.unload()
    assert not pool.unload("a")
    with pytest.raises(ModelNotLoaded, match="no model is loaded"):
        pool.lease()
    with pytest.raises(ModelNotLoaded, match="'a' is not loaded"):
        pool.lease("a")


def test_the_current_model_is_the_one_loaded_last_that_is_still_there(made: Any) -> None:
    pool = made(3)
    for key in "abc":
        pool.load(key, f"/{key}.gguf")
    assert keys(pool.seats()) == ["c", "b", "a"]
    pool.load("a", "/a.gguf")  # asked for again
    assert pool.current.key == "a"
    assert pool.unload()
    assert pool.current.key == "c"


def test_other_options_load_a_model_anew_unless_it_is_busy(made: Any, house: House) -> None:
    pool = made()
    first = pool.load("a", "/a.gguf", LoadOptions(ctx_len=64))
    with pool.lease("a"), pytest.raises(Conflict, match="'a' is busy"):
        pool.load("a", "/a.gguf", LoadOptions(ctx_len=128))
    second = pool.load("a", "/a.gguf", LoadOptions(ctx_len=128))
    assert second is not first
    assert house.most == 1


def test_a_key_that_is_there_is_refused_when_asked_to(made: Any) -> None:
    pool = made(2)
    pool.load("a", "/a.gguf")
    with pytest.raises(ModelAlreadyLoaded) as caught:
        pool.load("a", "/a.gguf", exist_ok=False)
    assert caught.value.path == "/a.gguf"
    with pytest.raises(ModelAlreadyLoaded):
        pool.load("a", "/a.gguf", LoadOptions(ctx_len=128), evict=False)


def test_closing_a_lease_twice_gives_it_back_once(made: Any) -> None:
    pool = made()
    seat = pool.load("a", "/a.gguf")
    first, second = pool.lease(), pool.lease()
    first.close()
    first.close()
    assert seat.leases == 1
    second.close()
    assert seat.leases == 0


# ---- eviction ------------------------------------------------------------------------------------


def test_the_least_recently_used_idle_model_makes_room(
    made: Any, house: House, clock: Clock
) -> None:
    pool = made(2)
    pool.load("a", "/a.gguf")
    clock.now += 1
    pool.load("b", "/b.gguf")
    clock.now += 1
    pool.lease("a").close()
    pool.load("c", "/c.gguf")
    assert keys(pool.seats()) == ["c", "a"]
    assert house.most == 2


def test_a_leased_model_is_never_evicted(made: Any, clock: Clock) -> None:
    pool = made(2)
    pool.load("a", "/a.gguf")
    clock.now += 1
    pool.load("b", "/b.gguf")
    with pool.lease("a"):
        pool.load("c", "/c.gguf")
        assert set(keys(pool.seats())) == {"a", "c"}
        with pool.lease("c"), pytest.raises(Conflict, match="busy are 'a', 'c'") as caught:
            pool.load("d", "/d.gguf")
        assert caught.value.busy == ("a", "c")


def test_a_model_with_requests_is_busy_without_a_lease(made: Any, house: House) -> None:
    pool = made()
    pool.load("a", "/a.gguf")
    house.engines[0].running = 1
    with pytest.raises(Conflict):
        pool.load("b", "/b.gguf")
    house.engines[0].running = 0
    pool.load("b", "/b.gguf")


def test_without_evict_a_full_pool_refuses(made: Any) -> None:
    pool = made()
    pool.load("a", "/a.gguf")
    with pytest.raises(ModelAlreadyLoaded, match=r"/a\.gguf is loaded") as caught:
        pool.load("b", "/b.gguf", evict=False)
    assert caught.value.path == "/a.gguf"


def test_a_provisional_model_gives_way_even_without_evict(made: Any, house: House) -> None:
    pool = made(3)
    pool.load("demo", "/demo.gguf", LoadOptions(provisional=True))
    pool.load("a", "/a.gguf", evict=False)
    assert house.loaded == ["/a.gguf"]


def test_a_busy_provisional_model_stays(made: Any) -> None:
    pool = made()
    pool.load("demo", "/demo.gguf", LoadOptions(provisional=True))
    with pool.lease(), pytest.raises(ModelAlreadyLoaded):
        pool.load("a", "/a.gguf", evict=False)


def test_a_file_that_cannot_be_loaded_costs_no_loaded_model(made: Any, house: House) -> None:
    def check(path: str, _backend: str) -> None:
        if path == "/bad.gguf":
            raise ModelFileError("damaged")

    pool = made(check=check)
    pool.load("a", "/a.gguf")
    with pytest.raises(ModelFileError):
        pool.load("bad", "/bad.gguf")
    assert house.loaded == ["/a.gguf"]
    assert pool.state("bad") is None


def test_a_full_pool_refuses_before_it_looks_at_the_file(made: Any) -> None:
    checked = []
    pool = made(check=lambda path, _backend: checked.append(path))
    pool.load("a", "/a.gguf")
    with pytest.raises(ModelAlreadyLoaded):
        pool.load("b", "/b.gguf", evict=False)
    assert checked == ["/a.gguf"]


def test_too_little_memory_evicts_idle_models_one_by_one(
    made: Any, house: House, clock: Clock
) -> None:
    pool = made(9)
    for key in "abc":
        pool.load(key, f"/{key}.gguf")
        clock.now += 1
    tight = {"/d.gguf": 1, "/e.gguf": -1}  # how many others may be there; none are few enough

    def before_load(path: str) -> None:
        if len(house.loaded) > tight.get(path, 9):
            raise NotEnoughMemory("too little", needed_bytes=2, available_bytes=1)

    house.before_load = before_load
    pool.load("d", "/d.gguf")
    assert keys(pool.seats()) == ["d", "c"]
    with pool.lease("c"), pytest.raises(NotEnoughMemory):
        pool.load("e", "/e.gguf")
    assert keys(pool.seats()) == ["c"]


def test_a_load_that_fails_leaves_its_place_free(made: Any, house: House) -> None:
    def before_load(path: str) -> None:
        if path == "/bad.gguf":
            raise ModelLoadError("no")

    pool = made()
    house.before_load = before_load
    with pytest.raises(ModelLoadError):
        pool.load("bad", "/bad.gguf")
    assert pool.state("bad") is None
    assert house.engines[-1].closed
    pool.load("a", "/a.gguf")


# ---- idle models ---------------------------------------------------------------------------------


def test_an_idle_model_is_swept_after_its_time(made: Any, clock: Clock) -> None:
    pool = made(2, idle_s=60.0)
    pool.load("a", "/a.gguf")
    lease = pool.lease("a")
    clock.now += 100
    pool.load("b", "/b.gguf")
    assert pool.sweep() == ()
    lease.close()
    clock.now += 59
    assert pool.sweep() == ()
    clock.now += 1
    assert sorted(pool.sweep()) == ["a", "b"]
    assert pool.seats() == ()


def test_requests_without_a_lease_count_as_use(made: Any, house: House, clock: Clock) -> None:
    pool = made(idle_s=60.0)
    pool.load("a", "/a.gguf")
    house.engines[0].running = 1
    clock.now += 100
    assert pool.sweep() == ()
    house.engines[0].running = 0
    clock.now += 59
    assert pool.sweep() == ()
    clock.now += 1
    assert pool.sweep() == ("a",)


def test_without_an_idle_time_nothing_is_swept(made: Any, clock: Clock) -> None:
    pool = made()
    pool.load("a", "/a.gguf")
    clock.now += 1e9
    assert pool.sweep() == ()


def test_the_timer_sweeps_by_itself(house: House) -> None:
    with ModelPool(make_engine=house.engine, check=lambda *_: None, idle_s=0.2) as pool:
        pool.load("a", "/a.gguf")
        assert len(house.engines) == 1
        until(lambda: not house.loaded)


def test_a_pool_that_nobody_holds_ends_its_timer(house: House) -> None:
    pool = ModelPool(make_engine=house.engine, check=lambda *_: None, idle_s=3600.0)
    pool.load("a", "/a.gguf")
    timer, gone = pool._timer, weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert timer is not None
    timer.join(60)
    assert not timer.is_alive()


# ---- several threads -----------------------------------------------------------------------------


def test_a_load_keeps_nobody_else_waiting(made: Any, house: House) -> None:
    pool = made(2)
    pool.load("a", "/a.gguf")
    held = Held(house, "/b.gguf")
    thread = in_thread(lambda: pool.load("b", "/b.gguf"))
    assert held.arrived.wait(60)
    assert pool.state("b") == "loading"
    assert keys(pool.seats()) == ["a"]
    with pool.lease("a") as lease:
        assert lease.seat.key == "a"
    with pytest.raises(ModelNotLoaded):
        pool.lease("b")
    held.go.set()
    thread.join()
    assert pool.state("b") == "loaded"


def test_loads_of_one_key_come_one_after_another_and_share_the_model(
    made: Any, house: House
) -> None:
    pool = made(2)
    held = Held(house, "/a.gguf")
    found: list[Seat] = []
    threads = [in_thread(lambda: found.append(pool.load("a", "/a.gguf"))) for _ in range(8)]
    assert held.arrived.wait(60)
    held.go.set()
    for thread in threads:
        thread.join()
    assert len({id(seat) for seat in found}) == 1
    assert len(found) == 8
    assert len(house.engines) == 1


def test_a_second_load_of_a_key_under_way_is_refused_when_asked_to(made: Any, house: House) -> None:
    pool = made()
    held = Held(house, "/a.gguf")
    thread = in_thread(lambda: pool.load("a", "/a.gguf"))
    assert held.arrived.wait(60)
    with pytest.raises(ModelAlreadyLoaded, match="is being loaded"):
        pool.load("a", "/a.gguf", exist_ok=False)
    with pytest.raises(ModelAlreadyLoaded, match="is being loaded"):
        pool.load("b", "/b.gguf", evict=False)
    held.go.set()
    thread.join()


def test_what_open_returns_cannot_be_evicted_in_between(made: Any) -> None:
    """Two threads that each want another model in a pool of one: each gets its own, or a clear
    refusal, and never the other's."""
    pool = made()
    served = []

    def use(key: str) -> None:
        for _ in range(200):
            with contextlib.suppress(Conflict), pool.open(key, f"/{key}.gguf") as lease:
                assert lease.engine.status().model.path == f"/{key}.gguf"
                served.append(key)

    threads = [in_thread(lambda key=key: use(key)) for key in "ab"]
    for thread in threads:
        thread.join()
    assert served


def test_unload_waits_for_a_load_under_way(made: Any, house: House) -> None:
    pool = made()
    held = Held(house, "/a.gguf")
    loading = in_thread(lambda: pool.load("a", "/a.gguf"))
    assert held.arrived.wait(60)
    done: list[bool] = []
    unloading = in_thread(lambda: done.append(pool.unload()))
    time.sleep(0.02)
    assert done == []
    held.go.set()
    loading.join()
    unloading.join()
    assert done == [True]
    assert house.loaded == []


def test_an_explicit_unload_ends_a_busy_model(made: Any, house: House) -> None:
    pool = made()
    pool.load("a", "/a.gguf")
    with pool.lease("a"):
        assert pool.unload("a")
        assert house.engines[0].unloads == 1  # its requests end with reason "unload"
        assert house.engines[0].closed
    assert not pool.unload("a")


def test_close_refuses_further_loads_and_waits_for_those_under_way(made: Any, house: House) -> None:
    pool = made(2)
    pool.load("a", "/a.gguf")
    held = Held(house, "/b.gguf")
    failed: list[Exception] = []

    def load() -> None:
        try:
            pool.load("b", "/b.gguf")
        except ModelNotLoaded as error:
            failed.append(error)

    loading = in_thread(load)
    assert held.arrived.wait(60)
    closing = in_thread(pool.close)
    until(lambda: pool._closed)
    assert closing.is_alive()
    held.go.set()
    closing.join()
    loading.join()
    assert len(failed) == 1
    assert house.loaded == []
    with pytest.raises(ModelNotLoaded, match="closed"):
        pool.load("c", "/c.gguf")
    pool.close()


def test_one_model_that_cannot_be_freed_keeps_no_other(house: House) -> None:
    def before_unload(path: str) -> None:
        if path == "/a.gguf":
            raise ModelLoadError("stuck")

    pool = ModelPool(max_loaded=2, make_engine=house.engine, check=lambda *_: None)
    pool.load("a", "/a.gguf")
    pool.load("b", "/b.gguf")
    house.before_unload = before_unload
    with pytest.raises(ModelLoadError):
        pool.close()
    assert pool.state("a") is None
    assert pool.state("b") is None
    assert house.loaded == ["/a.gguf"]


# ---- an engine of the caller ---------------------------------------------------------------------


def test_an_engine_of_the_caller_is_loaded_and_unloaded_but_never_closed(house: House) -> None:
    engine = house.engine()
    pool = ModelPool.around(engine)
    assert pool.current is None
    seat = pool.load("a", "/a.gguf")
    assert seat.engine is engine
    pool.load("b", "/b.gguf")
    assert keys(pool.seats()) == ["b"]
    assert house.most == 1
    pool.close()
    assert house.loaded == []
    assert not engine.closed


def test_a_model_that_the_caller_loaded_has_the_seat(house: House) -> None:
    engine = house.engine()
    engine.load("/mine.gguf")
    pool = ModelPool.around(engine, key="mine", extra=7)
    assert pool.current is not None
    assert (pool.current.key, pool.current.extra) == ("mine", 7)
    engine.unload()
    assert pool.current is None
    engine.load("/other.gguf")
    assert pool.current.key == "/other.gguf"
    with pytest.raises(ModelAlreadyLoaded):
        pool.load("a", "/a.gguf", evict=False)


@pytest.mark.parametrize(
    "wrong", [{"max_loaded": 0}, {"max_loaded": True}, {"max_loaded": 1.5}, {"idle_s": 0},
              {"idle_s": -1}, {"idle_s": float("nan")}, {"idle_s": float("inf")}],
)  # fmt: skip
def test_wrong_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ModelPool(**wrong)
    assert caught.value.field == next(iter(wrong))
