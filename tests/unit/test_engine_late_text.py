"""Text that is made on delivery is the text that the loop would have made, chunk by chunk."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.fake_runtime import EOS, SHARED, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.errors import BackendError, Cancelled
from nitrolib.prompt import Prompt
from nitrolib.sampling import SamplingParams

NEVER = "\x00 never said"
"""A stop string that keeps the making of the text in the loop."""


def says(text, at=3, end=EOS):
    script = dict(enumerate(text, start=at))
    return script if end is None else {**script, at + len(text): end}


def run(engine, **fields):
    """The chunks and the whole of one answer, but for what time tells."""
    shape = {name: fields.pop(name) for name in ("strip_leading_space",) if name in fields}
    params = SamplingParams(
        **{"temperature": 0, "repeat_penalty": 1.0, "seed": 1, "max_tokens": 30, **fields}
    )
    generation = engine.submit(
        GenerationRequest(prompt=Prompt.plain("ab"), params=params, cache_prompt=False, **shape)
    )
    chunks = [replace(chunk, timings=None) for chunk in generation]
    return chunks, replace(generation.result(), timings=None)


@pytest.mark.parametrize(
    "script",
    [
        says(b"plain words"),
        says("grüße 🙂 日本".encode()),
        says("cut in the middle 🙂".encode()[:-2]),
        says(b"\xff\xfe broken \x80"),
        says(b"  led by space"),
        says(b""),
        says(b"without an end", end=None),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"max_tokens": 5}, {"strip_leading_space": True}])
def test_the_chunks_are_those_of_the_loop(script, fields):
    with fake_engine(FakeRuntime(n_ctx=64, script=script, can=SHARED)) as engine:
        late = run(engine, **fields)
        assert late == run(engine, stop=(NEVER,), **fields)
        chunks, whole = late
        assert "".join(chunk.text for chunk in chunks) == whole.text
        assert sum((chunk.token_ids for chunk in chunks), ()) == whole.token_ids
        assert_at_rest(engine)


@pytest.mark.parametrize("stop", [(), (NEVER,)])
def test_an_answer_that_is_broken_off_has_all_that_was_said(stop):
    runtime = FakeRuntime(script=says("ein süßes Wort".encode()), can=SHARED)
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        params = SamplingParams(temperature=0, repeat_penalty=1.0, stop=stop)
        generation = engine.submit(GenerationRequest(prompt=Prompt.plain("ab"), params=params))
        for _ in range(7):  # the last token ends inside a character
            brake.step()
        generation.cancel()
        brake.release()
        with pytest.raises(Cancelled) as raised:
            generation.result(60)
        chunks = list(generation)
        partial = raised.value.partial
        assert partial.text.startswith("ein s")
        assert partial.text == "".join(chunk.text for chunk in chunks)
        assert partial.token_ids == sum((chunk.token_ids for chunk in chunks), ())
        assert partial.finish_reason is None
        assert_at_rest(engine)


@pytest.mark.parametrize("at", [1, 4, 1000])
def test_text_that_cannot_be_made_fails_its_request_alone(monkeypatch, at):
    from nitrolib.engine.answer import AnswerText

    feed, flush = AnswerText.feed, AnswerText.flush
    count = 0

    def broken(self, token):
        nonlocal count
        count += 1
        if count == at:
            raise ZeroDivisionError
        return feed(self, token)

    def broken_end(self):
        if at == 1000:
            raise ZeroDivisionError
        return flush(self)

    with fake_engine(FakeRuntime(script=says(b"words"), can=SHARED)) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(AnswerText, "feed", broken)
            patch.setattr(AnswerText, "flush", broken_end)
            with pytest.raises(BackendError, match="ZeroDivisionError"):
                run(engine)
        assert run(engine)[1].text == "words"
        assert_at_rest(engine)
