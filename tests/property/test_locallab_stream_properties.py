"""Whatever an answer's text and its cuts: the stream that the LocalLab dialect writes is read back
by the dialect's own client, by a copy of how it reads, and by a reader of server-sent events."""

from __future__ import annotations

import asyncio
import json
import re
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nitrolib.adapters.rest.locallab.stream import EventWriter, Form, error_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

with warnings.catch_warnings():  # an alias that the client uses is deprecated by websockets
    warnings.simplefilter("ignore")
    locallab_client = pytest.importorskip("locallab_client")

PIECES = [
    " ", "  ", "\n", "\r", "\r\n", "\n\n", "\t", "\x0b", "\x1c", "\x85", "\u2028", "\xa0", "\u3000",
    "[DONE]", "[", "DONE]", "Error:", "Error: boom", "Error", ":", "data:", "data: ", "data",
    ": hi", "event: x", "id: 1", "timeout", "\\n", '"[DONE]"', "{}", "42", "true", "Hello", "é😀",
    "\ufeff", "\0",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)
CUTS = st.lists(st.integers(0, 60))


def chunks_of(text: str, cuts: list[int]) -> list[str]:
    marks = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[start:end] for start, end in pairwise(marks)]


def written(chunks: list[str], form: Form, error: str | None = None) -> bytes:
    writer = EventWriter(form)
    body = b"".join(map(writer.text, chunks))
    return body + (writer.end() if error is None else writer.error(error))


def escaped(text: str) -> str:
    return re.sub(r"\r\n|\n", r"\\n", text).replace("\r", r"\r")


# ---- how the client reads, written anew from its description -------------------------------------


def read_generate(body: bytes) -> list[str]:
    """What `stream_generate` yields."""
    found = []
    for line in body.split(b"\n"):
        text = line.decode("utf-8").strip()
        if not text:
            continue
        text = text.removeprefix("data: ")
        if text == "[DONE]":
            return found
        if text.startswith("Error:"):
            return [*found, "\nError: " + text.replace("Error: ", "")]
        found.append(text)
    raise AssertionError("no end mark")


def read_chat(body: bytes) -> list[Any]:
    """What `stream_chat` yields."""
    found = []
    for line in body.split(b"\n"):
        try:
            document = json.loads(line.decode("utf-8").strip())
        except json.JSONDecodeError:
            continue
        if document == "[DONE]":
            return found
        found.append(document)
    raise AssertionError("no end mark")


def read_events(body: bytes) -> list[str]:
    """The data of every event, as the standard of server-sent events has it."""
    found: list[str] = []
    data: list[str] = []
    for line in re.split(r"\r\n|\r|\n", body.decode()):
        name, _, value = line.partition(":")
        if line == "" and data:
            found.append("\n".join(data))
            data = []
        elif name == "data":
            data.append(value.removeprefix(" "))
    return found


def read_in_the_shell(body: bytes) -> list[str]:
    """The loop of the dialect's documentation: lines that begin with `data:`, one space taken."""
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n")
             if line.startswith("data:")]  # fmt: skip
    return [line for line in lines if line != "[DONE]"]


# ---- the client itself, fed with bytes -----------------------------------------------------------


class Reply:
    """The response that the client's session gives it."""

    status = 200

    def __init__(self, body: bytes, posted: list[int]) -> None:
        self._body = body
        posted.append(1)

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    @property
    def content(self) -> AsyncIterator[bytes]:
        from aiohttp import StreamReader
        from aiohttp.base_protocol import BaseProtocol

        loop = asyncio.get_running_loop()
        reader = StreamReader(BaseProtocol(loop), limit=2**16, loop=loop)
        reader.feed_data(self._body)
        reader.feed_eof()
        return reader.__aiter__()


def read_with_the_client(body: bytes, method: str, argument: Any) -> tuple[list[Any], int]:
    """What the method yields, and how many requests it made."""
    posted: list[int] = []

    class Session:
        def post(self, *_: Any, **__: Any) -> Reply:
            return Reply(body, posted)

    async def read() -> list[Any]:
        client = locallab_client.LocalLabClient("http://nowhere")
        client._session = Session()
        found = [chunk async for chunk in getattr(client, method)(argument)]
        client._session = None
        return found

    return asyncio.run(read()), len(posted)


def real_generate(body: bytes) -> list[str]:
    found, posts = read_with_the_client(body, "stream_generate", "x")
    assert posts == 1
    return found


def real_chat(body: bytes) -> list[Any]:
    found, posts = read_with_the_client(body, "stream_chat", [])
    assert posts == 1
    return found


# ---- what holds ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "examples"), [(read_generate, 800), (real_generate, 150)], ids=["copy", "client"]
)
def test_the_client_reads_all_but_the_white_space_at_the_end(
    read: Callable[[bytes], list[str]], examples: int
) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(TEXTS, CUTS)
    def holds(text: str, cuts: list[int]) -> None:
        found = read(written(chunks_of(text, cuts), "sse"))
        assert "".join(found) == escaped(text).rstrip()
        assert all(one.strip() for one in found)

    holds()


@pytest.mark.parametrize(
    ("read", "examples"), [(read_chat, 800), (real_chat, 150)], ids=["copy", "client"]
)
def test_the_chat_client_reads_true_line_breaks(
    read: Callable[[bytes], list[Any]], examples: int
) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(TEXTS, CUTS)
    def holds(text: str, cuts: list[int]) -> None:
        found = read(written(chunks_of(text, cuts), "dual"))
        joined = "".join(one["content"] for one in found)
        assert text.startswith(joined)
        assert escaped(joined) == escaped(text).rstrip()
        for one in found:
            assert one["choices"][0]["delta"]["content"] == one["content"]

    holds()


@settings(max_examples=500, deadline=None)
@given(TEXTS, CUTS)
def test_the_second_lines_change_nothing_for_other_readers(text: str, cuts: list[int]) -> None:
    chunks = chunks_of(text, cuts)
    plain, dual = written(chunks, "sse"), written(chunks, "dual")
    assert read_events(dual) == read_events(plain)
    assert "".join(read_events(plain)) == escaped(text).rstrip() + "[DONE]"
    assert read_in_the_shell(dual) == read_in_the_shell(plain)
    every = [line for line in plain.decode().split("\n") if line]
    assert all(line.startswith("data: ") for line in every)
    assert every[-1] == "data: [DONE]"


@settings(max_examples=500, deadline=None)
@given(TEXTS, CUTS)
def test_standard_events_bring_the_text_as_it_is(text: str, cuts: list[int]) -> None:
    events = read_events(written(chunks_of(text, cuts), "lines"))
    assert events.pop() == "[DONE]"
    assert "[DONE]" not in events
    assert "".join(events) == re.sub(r"\r\n|\r", "\n", text)


@settings(max_examples=150, deadline=None)
@given(TEXTS, CUTS, TEXTS, st.sampled_from(["", "timeout", "Read TimeOut after 5 s", "boom"]))
def test_an_error_ends_the_stream_and_is_never_asked_for_again(
    text: str, cuts: list[int], before: str, message: str
) -> None:
    chunks = chunks_of(text, cuts)
    message = before + message
    *answer, last = real_generate(written(chunks, "sse", message))
    assert escaped(text).startswith("".join(answer))
    assert last.startswith("\nError:")
    assert "\n" not in last[1:]
    *answer, last = real_chat(written(chunks, "dual", message))
    assert last == {"error": error_line(message)}
    assert all("error" not in one for one in answer)


def test_the_events_as_documented() -> None:
    writer = EventWriter("dual")
    assert writer.text("Hello") == (
        b"data: Hello\n"
        b'{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],'
        b'"content":"Hello"}\n\n'
    )
    assert writer.text(" ") == b""
    assert EventWriter("dual").error("boom") == (
        b'data: Error: boom\n{"error":"boom"}\n\ndata: [DONE]\n"[DONE]"\n\n'
    )
    assert writer.end() == b'data: [DONE]\n"[DONE]"\n\n'
    assert EventWriter().text(" world") == b"data:  world\n\n"
