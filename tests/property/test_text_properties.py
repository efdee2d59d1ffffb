"""Whatever the cuts: streamed text joined is the whole, and nothing of a stop string comes out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import byte_texts, cut_bytes, cut_texts, cuts, letters, stop_strings, texts

from nitrolib.text import Detokenizer, StopMatcher

many = settings(max_examples=500, deadline=None)


def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What comes out of *text* and the stop that ended it, read off the whole text."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def may_become_a_stop(text: str, stops: list[str]) -> str:
    """The longest end of *text* with which a stop begins, not the whole stop."""
    for start in range(len(text)):
        if any(stop.startswith(text[start:]) and stop != text[start:] for stop in stops):
            return text[start:]
    return ""


@many
@given(cut_bytes())
def test_any_cut_of_any_bytes_decodes_to_the_same_text(pieces: list[bytes]) -> None:
    detokenizer = Detokenizer(pieces)
    text = "".join(detokenizer.feed(i) for i in range(len(pieces))) + detokenizer.finish()
    assert text == b"".join(pieces).decode(errors="replace")


@many
@given(texts, st.data())
def test_text_that_came_out_is_a_beginning_of_the_whole(text: str, data: st.DataObject) -> None:
    """No half character, and no replacement for one: what is out stays right."""
    encoded = text.encode()
    pieces = [encoded[part] for part in data.draw(cuts(len(encoded)))]
    detokenizer, fed, out = Detokenizer(pieces), b"", ""
    for i, piece in enumerate(pieces):
        out += detokenizer.feed(i)
        fed += piece
        assert text.startswith(out)
        assert out.encode() + detokenizer.pending == fed
    assert out == text
    assert detokenizer.finish() == ""


@many
@given(byte_texts, st.data())
def test_stripping_a_stream_strips_the_whole(encoded: bytes, data: st.DataObject) -> None:
    encoded = b" \n\xe3\x80\x80"[: data.draw(st.integers(0, 5))] + encoded
    pieces = [encoded[part] for part in data.draw(cuts(len(encoded)))]
    detokenizer = Detokenizer(pieces, strip_leading_space=True)
    text = "".join(detokenizer.feed(i) for i in range(len(pieces))) + detokenizer.finish()
    assert text == encoded.decode(errors="replace").lstrip()


@many
@given(cut_texts(letters), stop_strings)
def test_any_cut_ends_at_the_stop_that_the_whole_text_ends_at(
    chunks: list[str], stops: list[str]
) -> None:
    matcher = StopMatcher(stops)
    out = "".join(map(matcher.feed, chunks))
    out += matcher.finish()
    assert (out, matcher.matched) == first_stop("".join(chunks), stops)


@many
@given(cut_texts(), st.lists(texts.filter(bool), max_size=4), st.data())
def test_stops_of_any_characters_are_found_under_any_cut(
    chunks: list[str], stops: list[str], data: st.DataObject
) -> None:
    whole = "".join(chunks)
    if whole:
        start = data.draw(st.integers(0, len(whole) - 1))
        stops = [*stops, whole[start : start + data.draw(st.integers(1, 6))]]
    matcher = StopMatcher(stops)
    out = "".join(map(matcher.feed, chunks)) + matcher.finish()
    assert (out, matcher.matched) == first_stop(whole, stops)


@many
@given(cut_texts(letters), stop_strings)
def test_no_stop_ever_comes_out_and_only_its_beginning_is_held_back(
    chunks: list[str], stops: list[str]
) -> None:
    matcher, fed, out = StopMatcher(stops), "", ""
    for chunk in chunks:
        out += matcher.feed(chunk)
        fed += chunk
        assert not any(stop in out for stop in stops)
        if matcher.matched is None:
            assert matcher.held == may_become_a_stop(fed, stops)
            assert out + matcher.held == fed
    if matcher.matched is not None:
        assert (matcher.held, matcher.finish(), matcher.feed("more")) == ("", "", "")


@many
@given(cut_texts())
def test_without_stops_every_chunk_comes_out_as_it_is(chunks: list[str]) -> None:
    matcher = StopMatcher(())
    assert [matcher.feed(chunk) for chunk in chunks] == chunks
    assert (matcher.finish(), matcher.matched) == ("", None)


@many
@given(byte_texts, stop_strings, st.data())
def test_bytes_to_sendable_text_is_the_same_under_any_cut(
    encoded: bytes, stops: list[str], data: st.DataObject
) -> None:
    """Both together, as an answer streams."""
    pieces = [encoded[part] for part in data.draw(cuts(len(encoded)))]
    detokenizer, matcher, out = Detokenizer(pieces), StopMatcher(stops), ""
    for i in range(len(pieces)):
        out += matcher.feed(detokenizer.feed(i))
    out += matcher.feed(detokenizer.finish())
    out += matcher.finish()
    assert (out, matcher.matched) == first_stop(encoded.decode(errors="replace"), stops)
