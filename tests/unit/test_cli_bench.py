"""`nitro bench`: what is measured and how it is summed up."""

from __future__ import annotations

import pytest

from nitrolib.cli.bench import Result, ratio
from nitrolib.cli.measure import Measure, Round, lengths, summarise
from nitrolib.errors import InvalidRequest


@pytest.mark.parametrize("n_ctx", [4, 5, 10, 64, 100, 320, 512, 2048, 100_000])
def test_the_default_lengths_fit_every_context(n_ctx: int) -> None:
    prompt, answer = lengths(None, None, n_ctx)
    assert prompt >= 1
    assert answer >= 2
    assert prompt + answer <= n_ctx


def test_the_default_lengths_in_a_large_context_are_the_documented_ones() -> None:
    assert lengths(None, None, 2048) == (256, 64)


@pytest.mark.parametrize(("prompt", "answer"), [(100, None), (None, 30), (100, 30), (254, 2)])
def test_lengths_that_were_asked_for_are_kept(prompt: int | None, answer: int | None) -> None:
    found = lengths(prompt, answer, 256)
    assert found[0] + found[1] <= 256
    assert prompt in (None, found[0])
    assert answer in (None, found[1])


@pytest.mark.parametrize(("prompt", "answer"), [(255, 2), (256, None), (None, 256), (1, 300)])
def test_lengths_that_do_not_fit_are_refused(prompt: int | None, answer: int | None) -> None:
    with pytest.raises(InvalidRequest, match="do not fit a context of 256"):
        lengths(prompt, answer, 256)


def measure(prefill_s: float, decode_s: float) -> Measure:
    return Measure(
        prompt_tokens=100,
        completion_tokens=11,
        prefill_s=prefill_s,
        decode_s=decode_s,
        first_token_s=prefill_s + 0.5,
    )


def test_rates_are_tokens_by_the_seconds_they_took() -> None:
    one = measure(2.0, 5.0)
    assert one.prefill_tokens_per_s == 50.0
    assert one.decode_tokens_per_s == 2.0  # the first token belongs to the prefill


def test_the_summary_has_median_least_and_most_over_all_answers() -> None:
    rounds = [
        Round(measures=(measure(1.0, 1.0), measure(2.0, 2.0)), wall_s=2.0),
        Round(measures=(measure(4.0, 5.0),), wall_s=11.0),
    ]
    told = summarise(rounds)
    assert told["prefill_tokens_per_s"] == {"median": 50.0, "min": 25.0, "max": 100.0}
    assert told["decode_tokens_per_s"] == {"median": 5.0, "min": 2.0, "max": 10.0}
    assert told["first_token_s"] == {"median": 2.5, "min": 1.5, "max": 4.5}
    assert told["total_tokens_per_s"] == {"median": 6.0, "min": 1.0, "max": 11.0}


def total(*walls: float) -> Result:
    """A backend whose rounds of 11 tokens took so many seconds."""
    one = measure(1.0, 1.0)
    rounds = tuple(Round(measures=(one,), wall_s=wall) for wall in walls)
    return Result(backend="any", concurrency=1, rounds=rounds)


def test_backends_are_compared_round_by_round() -> None:
    # The machine was slow in the second round for both: the ratio does not move.
    assert ratio(total(1.0, 10.0, 2.0), total(2.0, 20.0, 4.0)) == 2.0
    assert ratio(total(1.0, 1.0, 1.0), total(2.0, 4.0, 3.0)) == 3.0
