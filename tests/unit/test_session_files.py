"""Sessions that are saved and loaded."""

from __future__ import annotations

import json
import os

import pytest
from support.fake_runtime import EOS, FakeRuntime, fake_engine

from nitrolib.errors import InvalidRequest
from nitrolib.prompt import ChatTemplate, PromptTemplate
from nitrolib.sampling import SamplingParams
from nitrolib.session import ChatSession, savefile

PARAMS = SamplingParams(
    temperature=0, max_tokens=8, stop=("STOP",), logit_bias=((65, -1.0),), seed=7
)


class Ending(FakeRuntime):
    """Ends every answer after a few tokens."""

    def logits(self, seq):
        logits = super().logits(seq)
        if len(self.cells[seq]) % 7 == 0:
            logits[EOS] = 300
        return logits


@pytest.fixture
def engine():
    with fake_engine(Ending(n_ctx=2048)) as engine:
        yield engine


def settings(session: ChatSession) -> tuple[object, ...]:
    return (
        session.messages,
        session.system,
        session.template,
        session.params,
        session.context_policy,
    )


@pytest.mark.parametrize(
    "template",
    [
        None,
        PromptTemplate(pre_prompt="", user_prompt="U:", closing="x"),
        ChatTemplate("{{ messages | length }}", "<s>", "</s>", ("END",)),
    ],
    ids=["none", "prompt", "chat"],
)
def test_a_loaded_session_is_the_saved_one(engine, tmp_path, template):
    session = ChatSession(
        engine,
        system="Sé brief 🙂",
        template=template,
        params=PARAMS,
        context_policy="drop_oldest_turns",
    )
    session.send("Hi \u2028 </s> \0 \U0001f600")
    session.send("More")
    session.save(tmp_path / "chat.json")
    loaded = ChatSession.load(tmp_path / "chat.json", engine)
    assert settings(loaded) == settings(session)


def test_a_loaded_session_goes_on_with_the_same_tokens(engine, tmp_path):
    session = ChatSession(engine, params=PARAMS)
    session.send("Hi")
    before = session.send("More")
    session.save(tmp_path / "chat.json")
    loaded = ChatSession.load(tmp_path / "chat.json", engine)
    after = loaded.send("And now?")
    assert after.prompt_token_ids[: len(before.prompt_token_ids)] == before.prompt_token_ids
    assert after.prompt_token_ids == session.fork().send("And now?").prompt_token_ids
    assert loaded.regenerate().prompt_token_ids == after.prompt_token_ids


def test_an_empty_session_can_be_saved(engine, tmp_path):
    ChatSession(engine, system="S").save(tmp_path / "chat.json")
    loaded = ChatSession.load(tmp_path / "chat.json", engine)
    assert [message.content for message in loaded.messages] == ["S"]


def test_another_vocabulary_gets_the_conversation_tokenized_anew(engine, tmp_path):
    session = ChatSession(engine, params=PARAMS)
    session.send("Hi")
    session.save(tmp_path / "chat.json")
    runtime = Ending(n_ctx=2048)
    runtime.vocabulary.pieces = (*runtime.vocabulary.pieces[:-1], b"other")
    runtime.tokenize = lambda text, space_prefix=True: [token ^ 1 for token in text.encode()]
    with fake_engine(runtime) as other:
        loaded = ChatSession.load(tmp_path / "chat.json", other)
        ids = loaded.send("More").prompt_token_ids
    assert bytes(token ^ 1 for token in ids[1:]).decode().endswith("USER: More\nASSISTANT:")


def test_no_damage_goes_unnoticed(engine, tmp_path):
    path = tmp_path / "chat.json"
    session = ChatSession(engine, system="S", params=PARAMS)
    session.send("Hi")
    session.save(path)
    whole = path.read_bytes()
    expected = settings(session)
    for position in range(0, len(whole), 7):
        for damaged in (
            whole[:position],
            whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :],
            whole[:position] + b"\xff" + whole[position + 1 :],
        ):
            path.write_bytes(damaged)
            outcome = loaded_or_error(path, engine)
            if isinstance(outcome, InvalidRequest):
                assert outcome.field == "path"
                assert "cannot be loaded" in str(outcome)
            else:  # white space between values is not content
                assert settings(outcome) == expected


def loaded_or_error(path, engine):
    try:
        return ChatSession.load(path, engine)
    except InvalidRequest as error:
        return error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[1]", "no nitrolib chat session"),
        ("{}", "no nitrolib chat session"),
        ('{"kind": "nitrolib chat session", "version": 99}', "version 99"),
        ('{"kind": "nitrolib chat session", "version": 1}', "checksum"),
        ("[" * 100_000, "not JSON"),
        ('{"kind": NaN}', "no nitrolib chat session"),
    ],
)
def test_something_else_is_refused_with_the_reason(engine, tmp_path, text, reason):
    path = tmp_path / "chat.json"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=reason):
        ChatSession.load(path, engine)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system", 1),
        ("system", "\ud800"),
        ("template", {"class": "os"}),
        ("template", {"class": "PromptTemplate", "nothing": 1}),
        ("template", {"class": "ChatTemplate", "source": "{% if %}"}),
        ("template", "x"),
        ("params", {"temperature": -1}),
        ("params", {"nothing": 1}),
        ("params", None),
        ("context_policy", "none"),
        ("turns", [{"user": "a"}]),
        ("turns", [{"user": "a", "assistant": 1, "dropped": 0}]),
        ("turns", [{"user": "a", "assistant": "b", "dropped": 5}]),
        ("turns", 5),
        ("evaluated", {"parts": [None], "prompt_ids": [], "answer_ids": []}),
        ("evaluated", {"parts": [], "prompt_ids": ["x"], "answer_ids": []}),
        ("evaluated", 1),
    ],
)
def test_a_file_with_a_wrong_value_is_refused_though_its_checksum_holds(
    engine, tmp_path, key, value
):
    path = tmp_path / "chat.json"
    session = ChatSession(engine, params=PARAMS)
    session.send("Hi")
    session.save(path)
    content = json.loads(path.read_text())["content"]
    savefile.write(path, "nitrolib chat session", 1, {**content, key: value})
    with pytest.raises(InvalidRequest) as error:
        ChatSession.load(path, engine)
    assert error.value.field == "path"


def test_token_ids_that_no_model_has_are_no_crash(engine, tmp_path):
    path = tmp_path / "chat.json"
    session = ChatSession(engine, params=PARAMS)
    session.send("Hi")
    session.save(path)
    content = json.loads(path.read_text())["content"]
    content["evaluated"]["answer_ids"] = [10**9, -5]
    savefile.write(path, "nitrolib chat session", 1, content)
    assert ChatSession.load(path, engine).send("More").prompt_token_ids
    content["evaluated"]["prompt_ids"] = [10**9]
    savefile.write(path, "nitrolib chat session", 1, content)
    with pytest.raises(InvalidRequest):
        ChatSession.load(path, engine).send("More")


def test_a_missing_file_is_an_os_error(engine, tmp_path):
    with pytest.raises(FileNotFoundError):
        ChatSession.load(tmp_path / "nothing.json", engine)
    with pytest.raises(OSError):
        ChatSession(engine).save(tmp_path / "no folder" / "chat.json")


def test_a_failed_save_leaves_the_earlier_file(engine, tmp_path, monkeypatch):
    path = tmp_path / "chat.json"
    session = ChatSession(engine, params=PARAMS)
    session.send("Hi")
    session.save(path)
    before = path.read_bytes()
    session.send("More")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        session.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_template_of_another_class_cannot_be_saved(engine, tmp_path):
    class Own(PromptTemplate):
        pass

    class Other:
        stops = ()
        render = PromptTemplate().render

    with pytest.raises(InvalidRequest) as error:
        ChatSession(engine, template=Other()).save(tmp_path / "chat.json")
    assert error.value.field == "template"
    with pytest.raises(InvalidRequest):
        ChatSession(engine, template=Own()).save(tmp_path / "chat.json")
    assert list(tmp_path.iterdir()) == []
