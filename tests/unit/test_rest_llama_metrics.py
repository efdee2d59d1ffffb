"""Metrics of the llama-server dialect: named and typed as llama.cpp's, sums that never fall."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.llama_rest import LlamaServer

from nitrolib.adapters.rest.llama_server.metrics import Totals
from nitrolib.engine.request import EngineStatus
from nitrolib.engine.status import EngineCounters

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNTERS = {
    "prompt_tokens", "prompt_tokens_cached", "prompt_seconds", "tokens_predicted",
    "tokens_predicted_seconds", "n_decode", "spec_decode_num_draft_tokens",
    "spec_decode_num_accepted_tokens", "spec_decode_num_drafts",
}  # fmt: skip
GAUGES = {
    "prompt_tokens_seconds", "predicted_tokens_seconds", "requests_processing",
    "requests_deferred", "n_busy_slots_per_decode", "n_tokens_max",
}  # fmt: skip
DONE = EngineCounters(
    requests=3, prompt_tokens=100, prompt_tokens_cached=40, prompt_s=2.0, predicted_tokens=33,
    predicted_steps=30, predicted_s=3.0, tokens_max=90, decodes=10, busy_slots=25,
)  # fmt: skip


class Told:
    """The metrics of one scrape, by name without the prefix."""

    def __init__(self, rest: LlamaServer) -> None:
        text = rest.get("/metrics").data.decode()
        families = [*text_string_to_metric_families(text)]
        assert all(one.name.startswith("llamacpp:") and one.documentation for one in families)
        self.types = {one.name.removeprefix("llamacpp:"): one.type for one in families}
        self.values: Mapping[str, float] = {
            sample.name.removeprefix("llamacpp:"): sample.value
            for one in families
            for sample in one.samples
        }


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> LlamaServer:
    """Its engine has done what `rest.done` says."""
    made: Any = LlamaServer()
    made.done = EngineCounters()
    monkeypatch.setattr(
        made.engine,
        "status",
        lambda: EngineStatus(
            model=made.engine.model,
            loading=False,
            running=2,
            waiting=1,
            max_queue=64,
            counters=made.done,
        ),
    )
    return made  # type: ignore[no-any-return]


def test_every_metric_has_its_name_and_type(rest: LlamaServer) -> None:
    types = Told(rest).types
    assert {name for name, kind in types.items() if kind == "counter"} == COUNTERS
    assert {name for name, kind in types.items() if kind == "gauge"} == GAUGES


def test_counters_are_those_of_the_engine(rest: Any) -> None:
    rest.done = DONE
    values = Told(rest).values
    assert values["prompt_tokens_total"] == 100
    assert values["prompt_tokens_cached_total"] == 40
    assert values["prompt_seconds_total"] == 2
    assert values["tokens_predicted_total"] == 33
    assert values["tokens_predicted_seconds_total"] == 3
    assert values["n_decode_total"] == 10
    assert values["n_tokens_max"] == 90
    assert values["n_busy_slots_per_decode"] == 2.5
    assert (values["requests_processing"], values["requests_deferred"]) == (2, 1)


def test_rates_are_those_since_the_last_scrape_without_first_tokens(rest: Any) -> None:
    rest.done = DONE
    values = Told(rest).values
    assert (values["prompt_tokens_seconds"], values["predicted_tokens_seconds"]) == (50, 10)
    values = Told(rest).values
    assert (values["prompt_tokens_seconds"], values["predicted_tokens_seconds"]) == (0, 0)
    rest.done = replace(DONE, prompt_tokens=110, prompt_s=2.5)
    assert Told(rest).values["prompt_tokens_seconds"] == 20


def test_guesses_are_told_by_their_place(rest: Any) -> None:
    assert "spec_decode_num_accepted_tokens_per_pos" not in Told(rest).types
    rest.done = replace(
        DONE, drafts=4, draft_tokens=8, draft_tokens_accepted=5, accepted_by_position=(3, 2)
    )
    text = rest.get("/metrics").data.decode()
    name = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total"
    assert f'{name}{{position="0"}} 3.0\n{name}{{position="1"}} 2.0\n' in text


class Engine:
    """Something that can be gone."""


def test_sums_never_fall_when_an_engine_is_gone() -> None:
    totals = Totals()
    first: Any = Engine()
    second: Any = Engine()
    one = replace(DONE, accepted_by_position=(1,))
    two = replace(DONE, tokens_max=7, accepted_by_position=(1, 2))
    whole = totals.update([(first, one), (second, two)])
    assert (whole.prompt_tokens, whole.tokens_max) == (200, 90)
    assert whole.accepted_by_position == (2, 2)
    del first
    gc.collect()
    assert totals.update([(second, two)]) == whole
    again = totals.update([(second, replace(two, prompt_tokens=150))])
    assert again.prompt_tokens == 250


def test_an_engine_that_rests_is_counted_once() -> None:
    """One that a caller owns is unloaded and loaded again, and goes on counting."""
    totals = Totals()
    engine: Any = Engine()
    totals.update([(engine, DONE)])
    assert totals.update([]) == DONE
    assert totals.update([(engine, replace(DONE, prompt_tokens=101))]).prompt_tokens == 101
