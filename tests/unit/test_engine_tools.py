"""Answers with tool calls: where their grammar begins to hold, and what control tokens show."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.fake_runtime import FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.engine.triggered import Spelling, TriggeredConstraint
from nitrolib.errors import InvalidRequest
from nitrolib.prompt import Message, PromptTemplate, Tool, Trigger, joined, prepare_chat
from nitrolib.sampling import SamplingParams
from nitrolib.sampling.constraint import compile_source, json_rule

pytest.importorskip("llguidance")

WEATHER = Tool(
    "weather",
    "The weather at a place.",
    {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer"}},
        "required": ["city"],
    },
)


# ---- through the engine


@pytest.fixture
def runtime():
    return FakeRuntime(n_ctx=2000)


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        assert_at_rest(engine)


def request(choice, runtime=None, says="", **fields):
    """The request of a plan; with `says` the model begins so."""
    messages = [Message("user", "Rain?")]
    plan = prepare_chat(PromptTemplate(), messages, [WEATHER], choice, json_rule=json_rule)
    made = GenerationRequest(
        prompt=plan.prompt,
        params=SamplingParams(**{"seed": 3, "max_tokens": 300, **fields}),
        constraint=plan.constraint,
        trigger=plan.trigger,
        shown=plan.shown,
    )
    if runtime is not None:
        with fake_engine(FakeRuntime(n_ctx=2000)) as engine:
            at = len(engine.complete(plan.prompt, SamplingParams(max_tokens=0)).prompt_token_ids)
        runtime.script = dict(enumerate(says.encode(), start=at))
    return plan, made


def read(plan, text):
    parser = plan.parser()
    return joined([*parser.feed(text), *parser.finish()])


@pytest.mark.parametrize("seed", range(8))
def test_a_required_call_is_all_there_is(engine, seed):
    plan, made = request("required", seed=seed, temperature=1.5)
    done = engine.submit(made).result(60)
    answer = read(plan, done.text)
    if done.complete:
        assert answer.calls
        assert answer.text.strip() == ""
    for call in answer.calls[: None if done.complete else -1]:
        arguments = json.loads(call.arguments)
        assert call.name == "weather"
        assert arguments["city"] in ("Oslo", "Rome")
        assert isinstance(arguments.get("days", 0), int)


def test_text_is_free_until_a_call_begins_and_a_call_is_not(engine, runtime):
    plan, made = request("auto", runtime, says="Let me see <tool_call>")
    done = engine.submit(made).result(60)
    answer = read(plan, done.text)
    assert answer.text.startswith("Let me see")
    assert [call.name for call in answer.calls[:1]] == ["weather"]
    assert json.loads(answer.calls[0].arguments)["city"] in ("Oslo", "Rome")
    assert done.complete == (done.finish_reason == "stop")


def test_an_answer_without_a_call_is_complete_text(engine):
    plan, made = request("auto", max_tokens=20)
    done = engine.submit(made).result(60)
    assert done.complete
    assert read(plan, done.text).calls == ()


def test_a_call_that_a_limit_cuts_is_incomplete(engine, runtime):
    _, made = request("auto", runtime, says="<tool_call>", max_tokens=15)
    assert not engine.submit(made).result(60).complete


def test_tools_and_a_grammar_of_ones_own_are_refused_together():
    for field, value in (("grammar", 'root ::= "a"'), ("json_schema", "{}")):
        with pytest.raises(InvalidRequest) as caught:
            request("auto", **{field: value})
        assert caught.value.field == field


@pytest.mark.parametrize("fields", [{"trigger": Trigger("<call>")}, {"constraint": b"start: x"}])
def test_a_trigger_without_a_constraint_and_a_constraint_that_is_no_text_are_refused(fields):
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest(prompt=(1,), **fields)
    assert caught.value.field in fields


def test_a_shown_control_token_has_its_text_and_others_have_none(engine, runtime):
    runtime.script = {2: 258, 3: ord("a"), 4: 256, 5: 257}
    done = engine.submit(GenerationRequest(prompt=(1, 2), shown=((258, "<|user|>"),))).result(60)
    assert done.text == "<|user|>a"
    assert engine.complete((1, 2)).text == "a"


# ---- the trigger alone, on a vocabulary of longer pieces

PIECES = [bytes((i,)) for i in range(128)] + [
    b"<ca", b"ll>", b"ll>7", b"ll>x", b"so <call>", b"so <call>5!", b" <", b"call", b"", b"",
]  # fmt: skip
CA, LL, LL7, LLX, SO, SO5, LT, CALL, MARK, EOG = range(128, 138)
VOCABULARY = SimpleNamespace(
    pieces=PIECES, control=frozenset({MARK, EOG}), eog=frozenset({EOG}), n_vocab=len(PIECES)
)
SPELLED = 'start: "<call>" /[0-9]+/ "!"\n'


def state(lark=SPELLED, **trigger):
    compiled = compile_source("lark", lark, VOCABULARY, "tools")
    made = Trigger(**{"text": "<call>", **trigger})
    return TriggeredConstraint(compiled.start, made, Spelling(VOCABULARY))


def say(constraint, *tokens):
    for token in tokens:
        for one in [token] if isinstance(token, int) else token.encode():
            assert constraint.allows(one), PIECES[one]
            constraint.accept(one)
    return constraint


def test_before_the_trigger_everything_may_come_and_it_may_end():
    constraint = say(state(), "any text < cal", CA, "x", LT, CALL)
    assert constraint.may_end
    assert constraint.allows(EOG)
    assert not constraint.finished
    assert constraint.mask().all()  # ">" too, which begins a call


def test_from_the_trigger_on_the_grammar_holds():
    constraint = say(state(), "so <call>")
    assert not constraint.may_end
    assert not constraint.allows(ord("x"))
    assert not constraint.allows(EOG)
    assert set(constraint.mask().nonzero()[0]) == set(b"0123456789")
    say(constraint, "42!")
    assert constraint.finished


@pytest.mark.parametrize(
    "tokens", [(CA, LL), (LT, CALL, ord(">")), (SO,), (ord("<"), CALL, ord(">"))]
)
def test_the_trigger_is_seen_however_it_is_cut(tokens):
    constraint = say(state(), *tokens)
    assert not constraint.may_end
    assert not constraint.allows(ord("x"))


def test_what_a_token_says_beyond_the_trigger_must_be_legal():
    constraint = say(state(), CA)
    assert constraint.allows(LL7)
    assert not constraint.allows(LLX)
    mask = constraint.mask()
    assert (mask[LL7], mask[LLX], mask[LL], mask[ord("x")]) == (True, False, True, True)
    say(constraint, LL7, "3!")
    assert constraint.finished
    assert say(state(), SO5).finished


def test_at_the_start_only_white_space_may_come_before_it():
    at_start = {"at_start": True}
    constraint = say(state(**at_start), " \n ", CA, LL)
    assert not constraint.may_end
    late = say(state(**at_start), "a", CA, LLX)
    assert late.may_end
    assert say(state(**at_start), SO5).may_end


def test_a_control_token_begins_the_grammar_that_begins_with_it():
    lark = f'start: <[{MARK}]> /[0-9]+/ "!"\n'
    constraint = say(state(lark, token=MARK), "text <call>x", MARK)
    assert not constraint.allows(ord("x"))
    assert say(constraint, "1!").finished
    both = f'start: (<[{MARK}]> | "<call>") /[0-9]+/ "!"\n'
    assert say(state(both, token=MARK), "<call>1!").finished
    assert say(state(both, token=MARK), MARK, "1!").finished


def test_texts_are_spelled_with_the_tokens_there_are():
    spelling = Spelling(VOCABULARY)
    for text in (b"<call>7", b"so <call>5!x", b"abc", b""):
        assert b"".join(PIECES[token] for token in spelling.tokens(text)) == text
    assert spelling.tokens("é".encode()) is None


def test_the_sampler_draws_again_when_the_trigger_goes_on_wrongly():
    from nitrolib.sampling import Sampler

    constraint = say(state(), CA)
    how = SamplingParams(temperature=0, repeat_penalty=1.0)
    sampler = Sampler(how, len(PIECES), 100, constraint=constraint)
    row = np.zeros(len(PIECES), np.float32)
    row[LLX], row[LL7] = 9, 8
    assert sampler.sample(row) == LL7
