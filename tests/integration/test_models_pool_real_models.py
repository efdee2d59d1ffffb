"""The pool with real engines: two models side by side, eviction, and requests that end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from support.gguf_maker import make_llama
from support.models import slow_model

from nitrolib import LoadOptions, SamplingParams
from nitrolib.errors import Cancelled, Conflict, ModelFileError, ModelNotLoaded
from nitrolib.models import ModelPool, Registry

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = LoadOptions(ctx_len=128, threads=1, ngl=0, warm_up=False)
ENDLESS = SamplingParams(ignore_eos=True)
GREEDY = SamplingParams(temperature=0, max_tokens=8)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("pool")
    registry = Registry(folder / "models")
    for seed, name in enumerate(("first", "org/second")):
        registry.add(name, path=make_llama(folder / f"{seed}.gguf", seed=seed))
    return registry


def test_two_models_answer_side_by_side_and_each_as_when_alone(registry: Registry) -> None:
    alone = {}
    for entry in registry.entries():
        with ModelPool() as pool:
            seat = pool.load(entry.id, str(entry.path), OPTIONS)
            alone[entry.id] = seat.engine.complete("Hello", GREEDY).token_ids
    assert len({*alone.values()}) == 2
    with ModelPool(max_loaded=2) as pool:
        for entry in registry.entries():
            pool.load(entry.id, str(entry.path), OPTIONS)
        found: dict[str, set[tuple[int, ...]]] = {key: set() for key in alone}

        def ask(key: str) -> None:
            for _ in range(5):
                with pool.lease(key) as lease:
                    found[key].add(lease.engine.complete("Hello", GREEDY).token_ids)

        threads = [threading.Thread(target=ask, args=(key,)) for key in alone for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {key: {tokens} for key, tokens in alone.items()}


def test_a_model_that_answers_is_not_evicted_and_an_idle_one_is(
    registry: Registry, tmp_path: Path
) -> None:
    slow = slow_model(tmp_path)
    first = registry.get("first")
    with ModelPool() as pool:
        seat = pool.load("slow", slow, LoadOptions(threads=1, ngl=0, warm_up=False))
        generation = seat.engine.stream("Once", ENDLESS)
        chunks = iter(generation)
        next(chunks)  # no lease: its requests alone keep it
        with pytest.raises(Conflict, match="slow"):
            pool.load(first.id, str(first.path), OPTIONS)
        generation.cancel()
        with pytest.raises(Cancelled):
            generation.result(timeout=60)
        pool.load(first.id, str(first.path), OPTIONS)
        assert [one.key for one in pool.seats()] == ["first"]
        with pytest.raises(ModelNotLoaded):
            seat.engine.complete("x")


def test_a_file_that_is_no_model_costs_no_loaded_one(registry: Registry, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_text("<html>")
    first = registry.get("first")
    with ModelPool() as pool:
        pool.load(first.id, str(first.path), OPTIONS)
        with pytest.raises(ModelFileError):
            pool.load("bad", bad, OPTIONS)
        with pool.lease() as lease:
            assert lease.engine.complete("Hello", GREEDY).text is not None


def test_unload_ends_running_requests_with_what_there_is(tmp_path: Path) -> None:
    with ModelPool() as pool:
        pool.load("slow", slow_model(tmp_path), LoadOptions(threads=1, ngl=0, warm_up=False))
        with pool.lease() as lease:
            generation = lease.engine.stream("Once", ENDLESS)
            chunks = iter(generation)
            next(chunks)
            assert pool.unload("slow")
            with pytest.raises(Cancelled) as caught:
                generation.result(timeout=60)
            assert caught.value.reason == "unload"
            assert caught.value.partial.token_ids
