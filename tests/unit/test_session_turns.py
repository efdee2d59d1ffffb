"""ChatSession over the real engine on a runtime that says what the test tells it to."""

from __future__ import annotations

import gc
import threading
from collections import deque

import pytest
from support.chat_templates import CHATML
from support.fake_runtime import BOS, EOS, Brake, FakeRuntime, assert_at_rest, fake_engine
from support.waiting import when

from nitrolib.engine import Completion
from nitrolib.engine.job import clock
from nitrolib.errors import (
    BackendError,
    ContextOverflow,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotLoaded,
)
from nitrolib.prompt import ChatTemplate, Message, PromptTemplate, encode
from nitrolib.sampling import SamplingParams
from nitrolib.session import ChatSession

GREEDY = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=40)
PLAIN = PromptTemplate(
    pre_prompt="", system_prompt="S:", user_prompt="|U:", ai_prompt="|A:", style="verbatim"
)
MARKED = ChatTemplate(
    "{% for m in messages %}{{ '<|user|>' + m.role + ' ' + m.content + '<|end|>' }}{% endfor %}"
    "{{ '<|user|>assistant ' }}"
)


class Talker(FakeRuntime):
    """Says the given answers, one a turn, each with an end token; a space goes before every text
    as SentencePiece puts it, if asked for."""

    def __init__(self, *answers: str, spaces: bool = False, **options):
        super().__init__(**options)
        self.vocabulary.add_space_prefix = spaces
        self.saying = deque()
        self.say(*answers)

    def say(self, *answers: str) -> None:
        for answer in answers:
            self.saying += (*answer.encode(), EOS)

    def tokenize(self, text, *, space_prefix=True):
        spaced = " " + text if space_prefix and self.vocabulary.add_space_prefix else text
        return super().tokenize(spaced)

    def logits(self, seq):
        logits = super().logits(seq)
        logits[self.saying.popleft() if self.saying else EOS] = 200
        return logits


def session_with(*answers: str, engine: dict | None = None, spaces=False, **options):
    runtime = Talker(*answers, spaces=spaces, **(engine or {}))
    made = ChatSession(fake_engine(runtime), **{"params": GREEDY, **options})
    made.runtime = runtime
    return made


@pytest.fixture(autouse=True)
def _engines_rest(monkeypatch):
    """Every engine of a test is at rest when the test is over."""
    engines = []
    monkeypatch.setitem(globals(), "fake_engine", lambda *a, **k: _kept(engines, *a, **k))
    yield
    for engine in engines:
        if engine.status().model is not None:
            assert_at_rest(engine)
        engine.close()


_make = fake_engine


def _kept(engines, *arguments, **options):
    engines.append(_make(*arguments, **options))
    return engines[-1]


def texts(session: ChatSession) -> list[str]:
    return [f"{message.role}: {message.content}" for message in session.messages]


def full_prompt(session: ChatSession, text: str, template=PLAIN) -> list[int]:
    """The next prompt tokenized anew."""
    prompt = template.render([*session.messages, Message("user", text)])
    return encode(prompt, session.engine.vocabulary, session.runtime.tokenize)


def test_a_turn_adds_the_question_and_the_answer():
    session = session_with("Hello", "Fine", system="Be brief.")
    answer = session.send("Hi")
    assert isinstance(answer, Completion)
    assert answer.text == "Hello"
    session.send("How are you?")
    assert texts(session) == [
        "system: Be brief.",
        "user: Hi",
        "assistant: Hello",
        "user: How are you?",
        "assistant: Fine",
    ]
    assert isinstance(session.messages, tuple)


def test_the_stream_is_the_answer():
    session = session_with("Hello")
    chunks = list(session.stream("Hi"))
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert chunks[-1].finish_reason == "stop"
    assert texts(session) == ["user: Hi", "assistant: Hello"]


@pytest.mark.parametrize("template", [PLAIN, MARKED], ids=["plain", "control tokens"])
def test_the_second_turn_goes_on_from_the_exact_tokens_of_the_first(template):
    session = session_with("Hello", "Fine", template=template)
    first = session.send("Hi")
    expected = full_prompt(session, "More", template)
    second = session.send("More")
    held = (*first.prompt_token_ids, *first.token_ids[:-1])
    assert second.prompt_token_ids[: len(held)] == held
    assert second.usage.cached_tokens == len(held)
    assert list(second.prompt_token_ids) == expected


def test_ids_of_an_answer_are_kept_though_its_text_would_be_tokenized_otherwise():
    session = session_with("Hello", spaces=True, template=PLAIN)
    first = session.send("Hi")
    assert first.prompt_token_ids == (BOS, *b" |U:Hi|A:")
    session.runtime.say("Fine")
    second = session.send("More")
    # One space before the whole text, and none where the answer goes on from the prompt or the
    # template from the answer.
    assert second.prompt_token_ids == (BOS, *b" |U:Hi|A:Hello|U:More|A:")


def test_text_after_a_control_token_gets_its_space_in_a_continued_prompt_too():
    session = session_with("Hello", "Fine", spaces=True, template=MARKED)
    session.send("Hi")
    expected = full_prompt(session, "More", MARKED)
    assert list(session.send("More").prompt_token_ids) == expected


def test_the_white_space_before_an_answer_stays_as_the_model_wrote_it():
    session = session_with(" \nHello", "Fine")  # Nitro style: one space stands there
    first = session.send("Hi")
    assert first.text == "Hello"
    second = session.send("More")
    assert bytes(second.prompt_token_ids[1:]).endswith(
        b"USER: Hi\nASSISTANT: \nHello\nUSER: More\nASSISTANT:"
    )
    assert second.usage.cached_tokens == len(first.prompt_token_ids) + len(b" \nHello")


def test_the_tokens_of_a_stop_string_are_used_again_where_the_template_writes_it():
    session = session_with("Hello|U:", "Fine", template=PLAIN)
    first = session.send("Hi")
    assert (first.text, first.stop) == ("Hello", "|U:")
    expected = full_prompt(session, "More")
    second = session.send("More")
    assert list(second.prompt_token_ids) == expected
    assert second.usage.cached_tokens == len(first.prompt_token_ids) + len(b"Hello|U:") - 1


def test_the_tokens_of_a_stop_string_go_where_the_template_writes_something_else():
    session = session_with(" Hello\nUSER: me", "Fine")
    assert session.send("Hi").text == "Hello\n"
    expected = full_prompt(session, "More", PromptTemplate())
    assert list(session.send("More").prompt_token_ids) == expected


def test_an_answer_cut_by_its_limit_goes_on_whole():
    session = session_with("Hello", "Fine", template=PLAIN)
    first = session.send("Hi", SamplingParams(temperature=0, max_tokens=3))
    assert (first.text, first.finish_reason) == ("Hel", "length")
    session.runtime.saying.clear()
    session.runtime.say("Fine")
    expected = full_prompt(session, "More")
    second = session.send("More")
    assert list(second.prompt_token_ids) == expected
    assert second.usage.cached_tokens >= len(first.prompt_token_ids) + 2


def test_an_empty_answer_is_an_answer():
    session = session_with("", "Fine", template=MARKED)
    assert session.send("Hi").text == ""
    expected = full_prompt(session, "More", MARKED)
    assert list(session.send("More").prompt_token_ids) == expected
    assert texts(session)[1] == "assistant: "


def test_a_control_token_that_the_model_made_up_does_not_stay():
    session = session_with(template=MARKED)
    session.runtime.saying += (*b"He", 258, *b"llo", EOS)
    first = session.send("Hi")
    assert first.text == "Hello"
    assert 258 in first.token_ids
    expected = full_prompt(session, "More", MARKED)
    session.runtime.say("Fine")
    assert list(session.send("More").prompt_token_ids) == expected


@pytest.mark.parametrize("template", [PLAIN, MARKED], ids=["plain", "control tokens"])
def test_control_token_texts_in_messages_stay_text(template):
    session = session_with("a</s><|end|>b", "</s>", template=template)
    session.send("<|user|><s>")
    second = session.send("</s><|end|>")
    ids = list(second.prompt_token_ids)
    typed = b"<|user|><s>", b"a</s><|end|>b", b"</s><|end|>"
    text = bytes(token if token < 256 else 0 for token in ids)
    assert all(each in text for each in typed)
    expected = 1 if template is PLAIN else 1 + 3 + 3 + 1
    assert sum(token >= 256 for token in ids) == expected


def test_stops_of_the_template_end_an_answer():
    session = session_with("Hello|U:", template=PLAIN)
    assert session.send("Hi").text == "Hello"


def test_the_models_own_template_is_the_default():
    session = session_with("Hello", engine={"chat_template": CHATML})
    answer = session.send("Hi")
    assert bytes(answer.prompt_token_ids[1:]) == (
        b"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


# ---- leaving early -------------------------------------------------------------------------------


def test_a_turn_that_is_left_changes_nothing():
    session = session_with("Hello", "Fine")
    for chunk in session.stream("Hi"):
        assert chunk.text
        break
    assert session.messages == ()
    session.engine.clear_cache()  # once round the loop, so that the turn left has ended
    session.runtime.saying.clear()
    session.runtime.say("Fine")
    assert session.send("Hi again").text == "Fine"


def test_a_turn_that_is_never_read_ends_when_it_is_dropped():
    session = session_with("Hello")
    turn = session.stream("Hi")
    del turn
    gc.collect()
    session.engine.clear_cache()  # once round the loop, so that the turn dropped has ended
    session.runtime.saying.clear()
    session.runtime.say("Fine")
    assert session.send("Hi again").text == "Fine"


def test_leaving_the_with_block_cancels():
    session = session_with("Hello")
    with session.stream("Hi") as turn:
        next(turn)
    assert session.messages == ()
    with session.stream("Hi"):
        pass
    assert session.messages == ()


def test_a_turn_read_to_its_last_chunk_counts_though_the_loop_is_left_there():
    session = session_with("Hello")
    for chunk in session.stream("Hi"):
        if chunk.finish_reason:
            break
    assert texts(session) == ["user: Hi", "assistant: Hello"]


def release_when_asked_to_cancel(session, brake):
    """The call that asks for it waits for the loop."""
    scheduler = session.engine._model.scheduler
    when(lambda: not scheduler._inbox.empty(), brake.release)


def test_keep_makes_the_partial_answer_the_answer():
    session = session_with("Hello, and so on", "Fine", template=PLAIN)
    brake = Brake(session.runtime)
    with session.stream("Hi") as turn:
        brake.wait()
        for _ in range(3):
            brake.step()
        text = next(turn).text + next(turn).text
        release_when_asked_to_cancel(session, brake)
        kept = turn.keep()
    assert kept is not None
    assert kept.finish_reason is None
    assert kept.text.startswith(text)
    assert texts(session) == ["user: Hi", f"assistant: {kept.text}"]
    session.runtime.saying.clear()
    session.runtime.say("Fine")
    expected = full_prompt(session, "More")
    assert list(session.send("More").prompt_token_ids) == expected


def test_keep_with_nothing_to_keep_leaves_the_history():
    session = session_with("Hello")
    brake = Brake(session.runtime)
    turn = session.stream("Hi")
    brake.wait()
    release_when_asked_to_cancel(session, brake)
    assert turn.keep() is None
    assert session.messages == ()
    assert turn.keep() is None


def test_ctrl_c_in_a_loop_leaves_the_turn_to_be_kept(monkeypatch):
    session = session_with("Hello")
    with session.stream("Hi") as turn:
        text = next(turn).text
        with monkeypatch.context() as patch:
            patch.setattr(type(turn._chunks), "__next__", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(turn)
        kept = turn.keep()
    assert kept is not None
    assert kept.text.startswith(text)
    assert texts(session)[0] == "user: Hi"


def _interrupted(self):
    raise KeyboardInterrupt


# ---- what fails ----------------------------------------------------------------------------------


def test_a_failed_evaluation_leaves_the_history_and_the_session_usable():
    session = session_with("Hello", "Fine")
    session.send("Hi")
    session.runtime.before_decode = lambda feeds: session.runtime.fail([feeds[0].seq])
    with pytest.raises(BackendError):
        session.send("More")
    session.runtime.before_decode = lambda feeds: None
    assert texts(session) == ["user: Hi", "assistant: Hello"]
    assert session.send("More").text == "Fine"


def test_a_deadline_leaves_the_history():
    session = session_with("Hello")
    brake = Brake(session.runtime)
    jobs = session.engine._model.scheduler._jobs
    when(lambda: any(job.deadline < clock() for job in jobs), brake.release)
    with pytest.raises(DeadlineExceeded):
        session.send("Hi", timeout_s=0.05)
    assert session.messages == ()
    session.runtime.before_decode = lambda feeds: None
    assert session.send("Hi").text == "Hello"


def test_what_is_wrong_is_told_before_the_first_chunk():
    session = session_with("Hello")
    for wrong in (1, None, b"x", "\ud800"):
        with pytest.raises(InvalidRequest) as error:
            session.stream(wrong)
        assert error.value.field == "text"
    with pytest.raises(InvalidRequest):
        session.stream("Hi", timeout_s=0)
    assert session.send("Hi").text == "Hello"


@pytest.mark.parametrize("wrong", [{"system": 1}, {"context_policy": "shift"}])
def test_a_wrong_setting_is_refused_by_name(wrong):
    with pytest.raises(InvalidRequest) as error:
        session_with(**wrong)
    assert error.value.field == next(iter(wrong))


def test_a_template_that_refuses_the_conversation_leaves_the_session_usable():
    refusing = ChatTemplate(
        "{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}x"
    )
    session = session_with("Hello", template=refusing)
    session.send("Hi")
    with pytest.raises(InvalidRequest, match="one only"):
        session.send("More")
    assert len(session.undo()) == 2


def test_without_a_model_a_session_waits_for_one():
    session = session_with("Hello")
    session.engine.unload()
    with pytest.raises(ModelNotLoaded):
        session.send("Hi")
    assert session.messages == ()


def test_one_turn_runs_at_a_time():
    session = session_with("Hello", "Fine")
    session.send("Hi")
    with session.stream("More") as turn:
        before = session.messages
        for start in (
            lambda: session.send("x"),
            lambda: session.stream("x"),
            session.regenerate,
            session.undo,
        ):
            with pytest.raises(InvalidRequest) as error:
                start()
            assert error.value.field == "session"
        assert session.messages == before
        assert session.fork().messages == before
        turn.result()
    assert len(session.messages) == 4


def test_many_threads_get_one_turn_each_or_a_clear_error():
    session = session_with(*["Hello"] * 40, template=PLAIN, engine={"n_ctx": 4096})
    outcomes = []

    def answer():
        try:
            return session.send("Hi").text
        except InvalidRequest as error:
            return error.field

    def talk():
        outcomes.extend([answer() for _ in range(5)])

    threads = [threading.Thread(target=talk) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {"Hello", "session"}
    assert len(session.messages) == 2 * outcomes.count("Hello") > 0


# ---- undo, regenerate, fork ----------------------------------------------------------------------


def test_undo_takes_the_last_two_messages_back():
    session = session_with("Hello", "Fine", "Well", template=PLAIN)
    first = session.send("Hi")
    session.send("More")
    assert session.undo() == (Message("user", "More"), Message("assistant", "Fine"))
    assert texts(session) == ["user: Hi", "assistant: Hello"]
    third = session.send("Other")
    held = (*first.prompt_token_ids, *first.token_ids[:-1])
    assert third.prompt_token_ids[: len(held)] == held
    session.undo()
    session.undo()
    for nothing in (session.undo, session.regenerate):
        with pytest.raises(InvalidRequest) as error:
            nothing()
        assert error.value.field == "session"


def test_regenerate_puts_a_new_answer_in_the_old_ones_place():
    session = session_with("Hello", "Fine", "Better", template=PLAIN)
    session.send("Hi")
    second = session.send("More")
    again = session.regenerate()
    assert again.text == "Better"
    assert again.prompt_token_ids == second.prompt_token_ids
    assert again.usage.cached_tokens == len(second.prompt_token_ids) - 1
    assert texts(session)[2:] == ["user: More", "assistant: Better"]


def test_an_answer_stays_when_the_new_one_fails():
    session = session_with("Hello", "Fine")
    session.send("Hi")
    with session.stream_again() as turn:
        next(turn)
    assert texts(session) == ["user: Hi", "assistant: Hello"]


def test_a_fork_goes_its_own_way():
    session = session_with("Hello", "Fine", "Other", system="S", template=PLAIN)
    session.send("Hi")
    fork = session.fork()
    fork.send("Left")
    session.send("Right")
    assert texts(fork)[3:] == ["user: Left", "assistant: Fine"]
    assert texts(session)[3:] == ["user: Right", "assistant: Other"]
    fork.undo()
    fork.undo()
    assert len(session.messages) == 5
    assert fork.system == "S"


# ---- context -------------------------------------------------------------------------------------


def test_a_conversation_that_does_not_fit_is_an_error_by_default():
    session = session_with("Hello", engine={"n_ctx": 64}, template=PLAIN)
    session.send("Hi")
    with pytest.raises(ContextOverflow) as error:
        session.send("x" * 60)
    assert error.value.limit == 64
    assert texts(session) == ["user: Hi", "assistant: Hello"]
    assert session.undo()


def test_the_oldest_turns_are_left_out_when_asked_for():
    session = session_with(
        *["Hello"] * 12,
        engine={"n_ctx": 128},
        template=PLAIN,
        system="Rules",
        context_policy="drop_oldest_turns",
    )
    notes = [session.send(f"Question {number:02}").notes for number in range(12)]
    assert notes[0] == ()
    assert any("oldest turns were left out" in note for note in notes[-1])
    assert len(session.messages) == 1 + 24
    last = session.regenerate(SamplingParams(temperature=0, max_tokens=1))
    prompt = bytes(last.prompt_token_ids[1:])
    assert prompt.startswith(b"S:Rules|U:Question ")
    assert prompt.endswith(b"|U:Question 11|A:")
    assert b"Question 00" not in prompt


def test_room_is_left_for_the_answer():
    session = session_with(
        *["Hello"] * 20,
        engine={"n_ctx": 128},
        template=PLAIN,
        context_policy="drop_oldest_turns",
    )
    for _ in range(10):
        answer = session.send("Question")
        assert len(answer.prompt_token_ids) + 32 <= 128
        assert answer.finish_reason == "stop"


def test_turns_that_were_left_out_stay_out_until_more_must_go():
    session = session_with(
        *["Hello"] * 20,
        engine={"n_ctx": 200},
        template=PLAIN,
        params=SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=5),
        context_policy="drop_oldest_turns",
    )
    cached = [session.send("Question").usage.cached_tokens > 20 for _ in range(20)]
    assert cached.count(True) >= 8


def test_what_cannot_fit_alone_is_an_error_under_either_policy():
    session = session_with("Hello", engine={"n_ctx": 64}, context_policy="drop_oldest_turns")
    with pytest.raises(ContextOverflow):
        session.send("x" * 100)


def test_megabytes_are_refused_before_they_are_tokenized():
    session = session_with("Hello")

    def refuse(text):
        assert len(text) < 10_000

    session.runtime.before_tokenize = refuse
    with pytest.raises(ContextOverflow) as error:
        session.send("x" * 5_000_000)
    assert error.value.at_least
