"""Conversations: template, stop strings, what happens when they do not fit; and text functions."""

from __future__ import annotations

import pytest
from support.fake_runtime import BOS, EOS, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.errors import ContextOverflow, InvalidRequest
from nitrolib.prompt import (
    Message,
    Prompt,
    PromptTemplate,
    Segment,
    ToolCall,
    check_history,
)
from nitrolib.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=5)
PLAIN = PromptTemplate(
    pre_prompt="", system_prompt="S:", user_prompt="U:", ai_prompt="A:", style="verbatim"
)


@pytest.fixture
def engine():
    with fake_engine(FakeRuntime()) as engine:
        yield engine
        assert_at_rest(engine)


def turns(n, size=10):
    roles = ("user", "assistant")
    return [Message(roles[i % 2], f"{i}".ljust(size, "x")) for i in range(n)]


def shown(engine, request):
    return engine.detokenize(engine._model.prompt_ids(request.prompt))


def test_without_a_template_of_its_own_a_model_gets_the_nitro_style(engine):
    request = engine.chat_request([Message("user", "Hi")])
    assert request.prompt == PromptTemplate().render([Message("user", "Hi")])
    assert request.kind == "chat"
    assert request.strip_leading_space
    assert set(PromptTemplate().stops) <= set(request.params.stop)


def test_the_models_own_template_is_taken_and_compiled_once():
    source = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
    with fake_engine(FakeRuntime(chat_template=source)) as engine:
        done = engine.chat([Message("user", "a</s>")], GREEDY)
        assert done.prompt_token_ids == (BOS, 258, *b"a</s>")
        assert engine._model.chat_template is engine._model.chat_template


def test_a_given_template_wins_and_its_stops_are_added(engine):
    request = engine.chat_request(
        [Message("user", "Hi")], SamplingParams(stop=("x", "U:")), template=PLAIN
    )
    assert request.prompt.text == "U:HiA:"
    assert request.params.stop[:2] == ("x", "U:")
    assert len(set(request.params.stop)) == len(request.params.stop)
    assert set(PLAIN.stops) <= set(request.params.stop)


def test_messages_may_be_mappings(engine):
    assert engine.chat_request(
        [{"role": "user", "content": "Hi"}], template=PLAIN
    ) == engine.chat_request([Message("user", "Hi")], template=PLAIN)


@pytest.mark.parametrize("wrong", [{"role": "user"}, {"role": 1, "content": "x"}, "text", None, 5])
def test_what_is_no_message_is_refused_with_its_index(engine, wrong):
    with pytest.raises(InvalidRequest) as caught:
        engine.chat([Message("user", "Hi"), wrong])
    assert caught.value.field == "messages[1]"


def test_no_messages_are_refused(engine):
    with pytest.raises(InvalidRequest) as caught:
        engine.chat([])
    assert caught.value.field == "messages"


def test_an_unknown_policy_is_refused(engine):
    with pytest.raises(InvalidRequest) as caught:
        engine.chat(turns(1), context_policy="truncate")
    assert caught.value.field == "context_policy"


def test_a_conversation_that_does_not_fit_is_an_error_by_default(engine):
    with pytest.raises(ContextOverflow):
        engine.chat(turns(100))


def test_drop_oldest_turns_drops_as_little_as_it_can_and_says_so(engine):
    messages = [Message("system", "rules"), *turns(61)]
    done = engine.chat(messages, GREEDY, template=PLAIN, context_policy="drop_oldest_turns")
    text = bytes(done.prompt_token_ids[1:]).decode()
    assert text.startswith("S:rulesU:")
    assert text.endswith("60xxxxxxxxA:")
    kept = text.count("x0") + text.count("U:") + text.count("A:") - 1
    assert done.notes == (f"the {61 - kept} oldest messages were left out to fit the context",)
    # two messages of 12 characters more would not fit
    assert done.usage.prompt_tokens + 1 <= 512 < done.usage.prompt_tokens + 1 + 24


def test_drop_oldest_turns_drops_nothing_from_what_fits(engine):
    done = engine.chat(turns(3), GREEDY, template=PLAIN, context_policy="drop_oldest_turns")
    assert done.notes == ()
    assert done.prompt_token_ids == engine.chat(turns(3), GREEDY, template=PLAIN).prompt_token_ids


def test_calls_and_results_go_with_their_question_and_stay_with_the_last_one(engine):
    call = Message("assistant", "", tool_calls=(ToolCall("1", "clock", "{}"),))
    result = Message("tool", "noon", tool_call_id="1")
    shown = []

    class Seen:
        stops = ()

        def render(self, messages):
            check_history(messages)
            shown.append(list(messages))
            return Prompt.plain("x" * 90 * len(messages))

    rules, old, last = Message("system", "S"), Message("user", "old"), Message("user", "last")
    options = {"template": Seen(), "context_policy": "drop_oldest_turns"}
    request = engine.chat_request(
        [rules, old, call, result, Message("assistant", "a"), last], **options
    )
    assert shown[-1] == [rules, last]
    assert request.notes == ("the 4 oldest messages were left out to fit the context",)
    engine.chat_request([rules, old, Message("assistant", "a"), last, call, result], **options)
    assert shown[-1] == [rules, last, call, result]
    with pytest.raises(ContextOverflow):
        engine.chat_request([rules, last, call, result, call, result], **options)


def test_a_long_conversation_is_not_rendered_once_for_each_message(engine):
    rendered = []

    class Counted:
        stops = ()

        def render(self, messages):
            rendered.append(len(messages))
            return Prompt.plain("x" * len(messages))

    options = {"template": Counted(), "context_policy": "drop_oldest_turns"}
    request = engine.chat_request(turns(4001), **options)
    assert len(request.prompt) == 510  # BOS and an odd number of messages
    assert len(rendered) < 20


def test_what_must_stay_and_is_too_long_is_an_error(engine):
    messages = [*turns(4), Message("user", "x" * 600)]
    with pytest.raises(ContextOverflow):
        engine.chat(messages, context_policy="drop_oldest_turns")
    with pytest.raises(ContextOverflow):
        engine.chat([Message("system", "x" * 600), *turns(3)], context_policy="drop_oldest_turns")


def test_fields_of_the_request_pass_through(engine):
    request = engine.chat_request(turns(1), timeout_s=5, id_slot=0, notes=("cut",))
    assert (request.timeout_s, request.id_slot, request.notes) == (5, 0, ("cut",))


# ---- prompts and text


def test_a_text_prompt_is_plain_text_with_bos(engine):
    done = engine.complete("</s><s>", GREEDY)
    assert done.prompt_token_ids == (BOS, *b"</s><s>")


def test_a_prompt_of_segments_is_taken_as_it_is(engine):
    prompt = Prompt((Segment("<|user|>", True), Segment("<|user|>", False)), add_bos=False)
    assert engine.complete(prompt, GREEDY).prompt_token_ids == (258, *b"<|user|>")


def test_ids_are_taken_as_they_are(engine):
    assert engine.complete([1, 2, 3], GREEDY).prompt_token_ids == (1, 2, 3)


def test_tokenize_and_detokenize(engine):
    assert engine.tokenize("a</s>") == list(b"a</s>")
    assert engine.tokenize("a</s>", special=True) == [97, EOS]
    assert engine.tokenize("a", add_bos=True) == [BOS, 97]
    assert engine.tokenize("") == []
    assert engine.detokenize([BOS, *"grün".encode(), EOS]) == "grün"
    assert engine.detokenize([0xC3]) == "�"
    for wrong in ([260], [-1], [1.5], ["a"], None):
        with pytest.raises(InvalidRequest):
            engine.detokenize(wrong)


def test_prompt_ids_are_those_that_a_request_evaluates(engine):
    for prompt in ("ab", Prompt((Segment("</s>", True), Segment("</s>", False)), True), [1, 2]):
        ids = engine.prompt_ids(prompt)
        assert engine.complete(prompt, GREEDY).prompt_token_ids == tuple(ids)
    n_ctx = engine.status().model.n_ctx
    for wrong, error in ([[], InvalidRequest], ["a" * n_ctx, ContextOverflow]):
        with pytest.raises(error):
            engine.prompt_ids(wrong)


def test_a_bad_field_is_refused_by_the_request_itself():
    wrong_fields = [
        *({"timeout_s": wrong} for wrong in (0, -1, float("nan"), "5", True)),
        *({"id_slot": wrong} for wrong in (-2, 1.5, None)),
        *({"prompt": wrong} for wrong in ("text", None, [1])),
        {"kind": "talk"},
        {"params": None},
    ]
    for fields in wrong_fields:
        with pytest.raises(InvalidRequest) as caught:
            GenerationRequest(**{"prompt": (1,), **fields})
        assert caught.value.field in fields
