"""How an answer ends besides end tokens and stop strings, and what is told about it."""

from __future__ import annotations

import pytest
from support.fake_runtime import EOS, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest, Progress
from nitrolib.engine.answer import IndentGuard
from nitrolib.errors import Cancelled, ContextOverflow
from nitrolib.sampling import SamplingParams


@pytest.fixture
def runtime():
    return FakeRuntime()


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        assert_at_rest(engine)


def greedy(**changes):
    return SamplingParams(**{"temperature": 0, "repeat_penalty": 1.0, **changes})


def says(text, at=3, end=EOS):
    """A script that answers a prompt of `at` tokens with `text`, then ends."""
    script = dict(enumerate(text.encode(), start=at))
    return {**script, at + len(text.encode()): end}


# ---- n_indent


def test_a_line_indented_too_little_ends_the_text_before_its_first_character(engine, runtime):
    runtime.script = says("  a\n    b\n  c\n d")
    generation = engine.stream("ab", greedy(n_indent=3))
    chunks = list(generation)
    done = generation.result()
    assert done.text == "  a\n    b\n  " == "".join(chunk.text for chunk in chunks)
    assert (done.finish_reason, done.stop, done.stop_type) == ("length", None, "limit")
    assert done.token_ids == tuple(b"  a\n    b\n  c")


@pytest.mark.parametrize(
    ("text", "least", "passes"),
    [
        ("a\nb", 1, "a\n"),
        ("a\n b", 1, "a\n b"),
        ("a\n\tb", 1, "a\n\tb"),
        ("a\n \tb\n c", 2, "a\n \tb\n "),
        ("a\n\n  b", 2, "a\n"),  # an empty line is not indented
        ("\nb", 1, "\n"),
        ("a\n  ", 4, "a\n  "),  # the line may go on
        ("a b c", 9, "a b c"),
    ],
)
def test_indentation_is_judged_at_the_first_other_character(text, least, passes):
    guard = IndentGuard(least)
    assert guard.feed(text) == passes
    assert guard.broken == (passes != text)
    one_by_one = IndentGuard(least)
    assert "".join(map(one_by_one.feed, text)) == passes
    assert guard.feed("    more") == ("" if guard.broken else "    more")


def test_what_comes_first_in_the_text_ends_it(engine, runtime):
    runtime.script = says("a\nxEND")
    done = engine.complete("ab", greedy(n_indent=1, stop=("xEND",)))
    assert (done.text, done.finish_reason, done.stop) == ("a\n", "stop", "xEND")
    done = engine.complete("ab", greedy(n_indent=1, stop=("END",)))
    assert (done.text, done.finish_reason, done.stop) == ("a\n", "length", None)


def test_held_back_text_is_judged_when_it_is_flushed(engine, runtime):
    runtime.script = says("a\nEN")
    done = engine.complete("ab", greedy(n_indent=1, stop=("END",)))
    assert (done.text, done.finish_reason, done.stop_type) == ("a\n", "length", "limit")


# ---- t_max_predict_ms


class Late:
    """A clock that jumps by ten seconds whenever it is read."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 10.0
        return self.now


@pytest.fixture
def late(monkeypatch):
    monkeypatch.setattr("nitrolib.engine.sequence.clock", Late())


def test_the_time_limit_ends_the_answer_with_a_newline(engine, runtime, late):
    runtime.script = says("one two\nthree\n")
    done = engine.complete("ab", greedy(t_max_predict_ms=5))
    assert (done.text, done.finish_reason, done.stop_type) == ("one two\n", "length", "limit")


def test_text_without_a_newline_is_never_cut_by_time(engine, runtime, late):
    runtime.script = says("one two three")
    assert engine.complete("ab", greedy(t_max_predict_ms=5)).text == "one two three"


@pytest.mark.parametrize("off", [0, -1])
def test_no_time_limit_cuts_nothing(engine, runtime, late, off):
    runtime.script = says("one\ntwo\n")
    assert engine.complete("ab", greedy(t_max_predict_ms=off)).text == "one\ntwo\n"


def test_a_time_limit_that_has_not_passed_cuts_nothing(engine, runtime):
    runtime.script = says("one\ntwo\n")
    assert engine.complete("ab", greedy(t_max_predict_ms=600_000)).text == "one\ntwo\n"


# ---- no tokens


def test_no_tokens_evaluates_the_prompt_and_samples_nothing(engine, runtime):
    generation = engine.stream("x" * 99, greedy(max_tokens=0))
    (chunk,) = generation
    done = generation.result()
    assert (chunk.text, chunk.finish_reason) == ("", "length")
    assert (done.text, done.token_ids, done.finish_reason) == ("", (), "length")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (100, 0)
    assert done.tokens_cached == len(runtime.cells[0]) == 100
    assert not done.truncated
    again = engine.complete("x" * 99, greedy(max_tokens=1))
    assert again.usage.cached_tokens == 99


def test_no_tokens_of_a_prompt_that_does_not_fit_is_refused_too():
    with fake_engine(FakeRuntime(n_ctx=10)) as engine:
        with pytest.raises(ContextOverflow):
            engine.complete("x" * 9, greedy(max_tokens=0))
        assert engine.complete("x" * 8, greedy(max_tokens=0)).tokens_cached == 9


# ---- what is told of the end


def test_tokens_cached_is_what_the_slot_holds(engine, runtime):
    done = engine.complete("abc", greedy(max_tokens=7))
    assert done.tokens_cached == 4 + 7 - 1 == len(runtime.cells[0])


def test_a_full_context_truncates():
    """The reference server: 2 prompt tokens in a context of 256 give 254 more, 255 are cached."""
    with fake_engine(FakeRuntime(n_ctx=256)) as engine:
        done = engine.complete((1, 2), greedy())
        assert (done.finish_reason, done.truncated) == ("length", True)
        assert (len(done.token_ids), done.tokens_cached) == (254, 255)


def test_max_tokens_and_end_tokens_do_not_truncate(engine, runtime):
    assert not engine.complete("ab", greedy(max_tokens=2)).truncated
    runtime.script = says("x")
    assert not engine.complete("ab", greedy()).truncated


def test_the_stop_type_tells_the_four_ends_apart(engine, runtime):
    runtime.script = says("one END")
    assert engine.complete("ab", greedy()).stop_type == "eos"
    assert engine.complete("ab", greedy(stop=("END",))).stop_type == "word"
    assert engine.complete("ab", greedy(max_tokens=1)).stop_type == "limit"
    brake = Brake(runtime)
    generation = engine.stream("ab", greedy())
    brake.wait()
    generation.cancel()
    brake.release()
    with pytest.raises(Cancelled) as caught:
        generation.result()
    assert caught.value.partial.stop_type == "none"


def test_a_drawn_seed_is_told_and_repeats_the_answer(engine):
    done = engine.complete("ab", SamplingParams(temperature=2, max_tokens=20))
    again = engine.complete("ab", SamplingParams(temperature=2, max_tokens=20, seed=done.seed))
    assert done.token_ids == again.token_ids
    assert again.seed == done.seed


def test_timings_count_the_tokens_they_were_spent_on(engine):
    engine.complete("x" * 99, greedy(max_tokens=1))
    timings = engine.complete("x" * 99 + "y", greedy(max_tokens=5)).timings
    assert (timings.cache_n, timings.prompt_n, timings.predicted_n) == (100, 1, 5)


# ---- timings and progress on the way


def test_timings_come_with_every_chunk_only_when_asked_for(engine):
    chunks = list(engine.stream("ab", greedy(max_tokens=5), timings_per_token=True))
    counts = [chunk.timings.predicted_n for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 5
    spent = [chunk.timings.decode_s for chunk in chunks]
    assert spent == sorted(spent)
    chunks = list(engine.stream("ab", greedy(max_tokens=5)))
    assert [chunk.timings is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]


def progress(engine, prompt, **fields):
    chunks = list(engine.stream(prompt, greedy(max_tokens=3), return_progress=True, **fields))
    told = [chunk for chunk in chunks if chunk.progress]
    assert chunks[: len(told)] == told  # before all text
    assert all(chunk.text == "" and not chunk.token_ids for chunk in told)
    assert all(chunk.text for chunk in chunks[len(told) : -1])
    return told


def counts(told):
    return [(one.progress.cached, one.progress.processed, one.progress.total) for one in told]


def test_progress_comes_before_the_evaluation_and_after_each_part(engine):
    prompt = tuple(i % 200 for i in range(150))
    assert counts(progress(engine, prompt)) == [
        (0, 0, 150), (0, 64, 150), (0, 128, 150), (0, 150, 150),
    ]  # fmt: skip
    assert counts(progress(engine, prompt)) == [(149, 149, 150), (149, 150, 150)]
    times = [one.progress.time_s for one in progress(engine, prompt, cache_prompt=False)]
    assert times == sorted(times)
    assert times[0] >= 0


def test_progress_carries_timings_that_begin_at_nothing_when_both_are_asked_for(engine):
    prompt = tuple(range(100))
    told = progress(engine, prompt, timings_per_token=True)
    assert [one.timings.prompt_n for one in told] == [0, 64, 100]
    assert [one.timings.decode_s for one in told] == [0, 0, 0]


def test_nobody_gets_progress_unasked(engine):
    assert not any(chunk.progress for chunk in engine.stream("x" * 200, greedy(max_tokens=2)))


def test_a_prompt_without_an_answer_has_progress_too(engine):
    chunks = list(engine.stream("x" * 99, greedy(max_tokens=0), return_progress=True))
    assert [chunk.progress and chunk.progress.processed for chunk in chunks] == [0, 64, 100, None]
    assert chunks[-1].finish_reason == "length"


def test_the_first_progress_is_there_before_the_first_evaluation(engine, runtime):
    brake = Brake(runtime)
    request = GenerationRequest(prompt=tuple(range(100)), return_progress=True)
    generation = engine.submit(request)
    brake.wait()
    chunks = iter(generation)
    first = next(chunks).progress
    assert first == Progress(total=100, cached=0, processed=0, time_s=first.time_s)
    brake.step()
    assert next(chunks).progress.processed == 64
    chunks.close()
    brake.release()
    engine.clear_cache()
