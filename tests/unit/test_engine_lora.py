"""LoRA adapters: whose strengths act on what, and that nothing computed with others is reused."""

from __future__ import annotations

import random

import pytest
from support.fake_runtime import SHARED, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest, LoraStatus
from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.sampling import SamplingParams

PROMPT = tuple(range(100))


def ask(engine, lora=None, prompt=PROMPT, max_tokens=8, **fields):
    how = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=max_tokens)
    return engine.submit(GenerationRequest(prompt=prompt, params=how, lora=lora, **fields))


@pytest.fixture
def runtime():
    return FakeRuntime(n_seq=4, can=("lora", *SHARED), lora=(1.0, 0.0))


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        assert_at_rest(engine)


def plain(prompt=PROMPT):
    with fake_engine(FakeRuntime()) as engine:
        return ask(engine, prompt=prompt).result(60).token_ids


def test_requests_that_name_none_have_the_strengths_of_loading(engine):
    loaded = ask(engine).result(60).token_ids
    assert loaded == ask(engine, ((0, 1.0),)).result(60).token_ids
    assert loaded != ask(engine, ((0, 0.5),)).result(60).token_ids
    assert ask(engine, ()).result(60).token_ids == plain() != loaded


def test_adapters_that_are_not_named_do_not_act(engine, runtime):
    ask(engine, ((1, 0.7),)).result(60)
    assert runtime.scales == (0.0, 0.7)


def test_what_was_computed_with_other_strengths_is_not_reused(engine, runtime):
    ask(engine, ((0, 1.0),)).result(60)
    assert ask(engine, ((0, 0.5),)).result(60).usage.cached_tokens == 0
    assert ask(engine, ((0, 1.0),)).result(60).usage.cached_tokens == 99
    assert ask(engine, ((0, 0.5),)).result(60).usage.cached_tokens == 99
    assert runtime.copies == []


def test_a_slot_that_changes_its_strengths_begins_anew(engine, runtime):
    ask(engine, ((0, 1.0),), id_slot=0).result(60)
    changed = ask(engine, ((0, 0.5),), id_slot=0).result(60)
    assert changed.usage.cached_tokens == 0
    assert changed.token_ids == ask(engine, ((0, 0.5),), id_slot=1).result(60).token_ids


def test_a_step_holds_one_set_and_sets_take_turns(engine, runtime):
    used = []
    inner = runtime.use_adapters
    runtime.use_adapters = lambda scales: (used.append(scales), inner(scales))
    brake = Brake(runtime)
    sets = [((0, 1.0),), ((0, 0.5),), ((0, 1.0),), ()]
    running = [ask(engine, one, (n, *PROMPT), max_tokens=20) for n, one in enumerate(sets)]
    brake.wait()
    brake.release()
    done = [one.result(60).token_ids for one in running]
    assert {scales: used.count(scales) > 15 for scales in set(used)} == {
        (1.0, 0.0): True, (0.5, 0.0): True, (0.0, 0.0): True,
    }  # fmt: skip
    decodes = [tuple(seq for seq, _, _ in step) for step in runtime.steps[10:40]]
    assert set(decodes) == {(0, 2), (1,), (3,)}
    for n, one in enumerate(sets):
        alone = ask(engine, one, (n, *PROMPT), max_tokens=20, cache_prompt=False).result(60)
        assert alone.token_ids == done[n]


def test_nobody_waits_for_a_prefix_of_other_strengths(engine, runtime):
    brake = Brake(runtime)
    running = [ask(engine, one, PROMPT * 3) for one in (((0, 1.0),), ((0, 0.5),), ((0, 0.5),))]
    brake.wait()
    brake.release()
    assert [one.result(60).usage.cached_tokens for one in running] == [0, 0, 299]


def test_global_strengths_are_set_for_what_is_submitted_from_then_on(engine):
    half = ask(engine, ((0, 0.5),)).result(60).token_ids
    engine.set_lora_scales([(0, 0.5)])
    assert ask(engine).result(60).token_ids == half
    assert engine.status().model.lora == (
        LoraStatus(id=0, path="0.gguf", scale=0.5),
        LoraStatus(id=1, path="1.gguf", scale=0.0),
    )
    engine.set_lora_scales([])
    assert ask(engine).result(60).token_ids == plain()


@pytest.mark.parametrize(
    "wrong",
    [((2, 1.0),), ((-1, 1.0),), ((0, float("nan")),), ((0, True),), ((0, 1.0), (0, 0.5)),
     ((0,),), (0,), [(0, 1.0)], ((0.0, 1.0),), ((True, 1.0),), ((0, "1"),)],
)  # fmt: skip
def test_bad_strengths_are_refused(engine, wrong):
    with pytest.raises(InvalidRequest) as caught:
        ask(engine, wrong)
    assert caught.value.field == "lora"
    if isinstance(wrong, tuple):
        with pytest.raises(InvalidRequest):
            engine.set_lora_scales(wrong)


def test_without_adapters_it_is_unsupported():
    with fake_engine(FakeRuntime()) as engine:
        with pytest.raises(Unsupported) as caught:
            ask(engine, ((0, 1.0),))
        assert caught.value.field == "lora"
        with pytest.raises(Unsupported):
            engine.set_lora_scales([(0, 1.0)])
        assert ask(engine, ()).result(60)  # none is what there is
        assert engine.status().model.lora == ()


@pytest.mark.parametrize("seed", range(8))
def test_any_mix_gives_the_tokens_of_each_alone(seed):
    rng = random.Random(seed)
    runtime = FakeRuntime(n_seq=3, n_ctx=300, can=("lora", *SHARED), lora=(1.0,), room=400)
    with (
        fake_engine(runtime, shared_context=True, ctx_len=400) as engine,
        fake_engine(FakeRuntime(can=("lora",), lora=(1.0,))) as alone,
    ):
        running = []
        for _ in range(20):
            prompt = PROMPT[: rng.choice([50, 80, 100])] + (rng.randrange(3),) * rng.randrange(1, 9)
            lora = rng.choice([None, (), ((0, 0.5),)])
            running.append((lora, prompt, ask(engine, lora, prompt, rng.randrange(1, 40))))
        for lora, prompt, one in running:
            done = one.result(60)
            expected = ask(alone, lora, prompt, one.request.params.max_tokens).result(60)
            assert done.token_ids == expected.token_ids
        assert_at_rest(engine)
