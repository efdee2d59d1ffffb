"""Text to ids through the native tokenizer: what it gets wrong or dies of is kept from it."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import gguf_draft as gd
from support.gguf_maker import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNUSED,
    llama_draft,
    make_vocabulary,
)

from nitrolib.backends import LoadOptions
from nitrolib.backends.ctransformers import load
from nitrolib.errors import InvalidRequest, ModelFileError, ModelNotLoaded

OPTIONS = LoadOptions(ctx_len=32, threads=1, ngl=0)
# Pieces from which the texts of control tokens can be merged.
SPELLING = [
    "</", "</s", "<s", "<u", "<un", "<unk", "<|", "<|i", "<|im", "<|im|", "<|e", "<|e|", "  ",
    "\x01", "\x02x",
]  # fmt: skip


def _vocabulary(*, changes=()):
    """Texts, scores and types with the SPELLING pieces in place of rare ones."""
    texts, scores, types = map(list, make_vocabulary("spm", 600, ("<|im|>", "   ", "<|e|>")))
    for offset, text in enumerate(SPELLING):
        if text in texts:
            continue
        place = 500 + offset
        texts[place] = text
        scores[place] = -0.5 - offset / 100
    for place, text, kind in changes:
        texts[place], types[place] = text, kind
    return texts, scores, types


def _load(path, texts, scores, types):
    draft = llama_draft(n_vocab=len(texts))
    draft["tokenizer.ggml.tokens"] = gd.array(gd.STRING, texts)
    draft["tokenizer.ggml.scores"] = gd.array(gd.F32, scores)
    draft["tokenizer.ggml.token_type"] = gd.array(gd.I32, types)
    return load(draft.write(path), OPTIONS)


@pytest.fixture(scope="module")
def vocabulary():
    return _vocabulary(changes=[(520, "<un>", UNUSED)])


@pytest.fixture(scope="module")
def runtime(tmp_path_factory, vocabulary):
    runtime = _load(tmp_path_factory.mktemp("tok") / "m.gguf", *vocabulary)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def byte_runtime(tmp_path_factory):
    """A vocabulary in which a space costs three ids: U+2581 is no piece."""
    texts, scores, types = map(list, make_vocabulary("byte", 300))
    texts[texts.index(SPACE)] = "\ue999"
    runtime = _load(tmp_path_factory.mktemp("tok") / "b.gguf", texts, scores, types)
    yield runtime
    runtime.close()


def _text(runtime, ids) -> bytes:
    return b"".join(runtime.vocabulary.pieces[number] for number in ids)


def _slow(text: str, vocabulary) -> list[int]:
    """SentencePiece's merging, one best pair at a time: the twin to compare with."""
    texts, scores, _ = vocabulary
    ids = {text: number for number, text in enumerate(texts)}
    symbols = list(text.replace(" ", SPACE))
    while True:
        pairs = [
            (-scores[ids[a + b]], place)
            for place, (a, b) in enumerate(itertools.pairwise(symbols))
            if a + b in ids
        ]
        if not pairs:
            break
        _, place = min(pairs)
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    out: list[int] = []
    for symbol in symbols:
        if symbol in ids:
            out.append(ids[symbol])
        else:
            out += [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return out


TEXTS = st.text(st.sampled_from([*"the hello \n\t</s>|#\x01\x02xéП你", "🙂", SPACE]), max_size=40)
QUIET = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(TEXTS)
@QUIET
def test_ids_are_those_of_sentencepiece_with_and_without_the_space(runtime, vocabulary, text):
    plain = frozenset(range(len(vocabulary[0]))) - _marked(runtime)
    with_space, without = runtime.tokenize(text), runtime.tokenize(text, space_prefix=False)
    expected = _slow(" " + text, vocabulary) if text else []
    if plain.issuperset(expected):
        assert with_space == expected
    expected = _slow(text, vocabulary)
    if plain.issuperset(expected):
        assert without == expected


@given(st.text(max_size=60), st.booleans())
@QUIET
def test_no_text_is_lost_and_no_marker_arises(runtime, text, space):
    ids = runtime.tokenize(text, space_prefix=space)
    prefix = b" " if space and text else b""
    assert _text(runtime, ids) == prefix + text.replace(SPACE, " ").encode()
    assert _marked(runtime).isdisjoint(ids)


def _marked(runtime) -> frozenset[int]:
    vocabulary = runtime.vocabulary
    spaces = {n for n in vocabulary.user_defined if vocabulary.pieces[n].isspace()}
    return vocabulary.control | (vocabulary.user_defined - spaces) | vocabulary.eog


@pytest.mark.parametrize(
    "text", ["</s>", "a</s>b", "<s>", "<unk>", "<un>", "<|im|>", "<|e|>", "</s></s>\0</s>"]
)
def test_a_typed_control_text_is_spelled_in_other_pieces(runtime, vocabulary, text):
    assert _marked(runtime).intersection(_slow(" " + text, vocabulary))  # it would arise
    for space in (True, False):
        ids = runtime.tokenize(text, space_prefix=space)
        assert _marked(runtime).isdisjoint(ids)
        assert _text(runtime, ids) == (b" " if space else b"") + text.encode()


def test_a_user_defined_run_of_spaces_is_text(runtime, vocabulary):
    ids = runtime.tokenize("    x")
    assert _text(runtime, ids) == b"     x"
    assert ids == _slow("     x", vocabulary)


def test_the_parts_of_a_spelled_text_are_spelled_too(tmp_path):
    """ "</s>" is merged from "</s", which is a control token itself."""
    runtime = _load(tmp_path / "m.gguf", *_vocabulary(changes=[(501, "</s", CONTROL)]))
    ids = runtime.tokenize("</s>")
    runtime.close()
    assert runtime.vocabulary.control.isdisjoint(ids)
    assert _text(runtime, ids) == b" </s>"


def test_a_control_token_of_one_character_is_spelled_in_bytes(tmp_path):
    texts, scores, types = _vocabulary()
    place = texts.index("é")
    types[place] = CONTROL
    runtime = _load(tmp_path / "m.gguf", texts, scores, types)
    ids = runtime.tokenize("é", space_prefix=False)
    runtime.close()
    assert _text(runtime, ids) == "é".encode()
    assert types[ids[0]] == BYTE


def test_the_empty_text_has_no_ids(runtime):
    assert runtime.tokenize("") == []
    assert runtime.tokenize("", space_prefix=False) == []


@pytest.mark.parametrize("text", ["\0", "a\0b", "\0\0", "hello\0", "\0hello world"])
def test_nul_is_its_byte_token_and_nothing_behind_it_is_lost(runtime, text):
    assert runtime.vocabulary.byte_ids is not None
    ids = runtime.tokenize(text)
    assert ids.count(runtime.vocabulary.byte_ids[0]) == text.count("\0")
    assert _text(runtime, ids) == b" " + text.encode()
    assert _text(runtime, runtime.tokenize(text, space_prefix=False)) == text.encode()


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_an_invalid_request_naming_the_field(runtime, text):
    with pytest.raises(InvalidRequest, match="surrogate") as caught:
        runtime.tokenize(text)
    assert caught.value.field == "text"
    assert str(caught.value.value).startswith("U+D")
    str(caught.value).encode()  # can be sent


@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_what_is_no_text_is_an_invalid_request(runtime, text):
    with pytest.raises(InvalidRequest):
        runtime.tokenize(text)


@pytest.mark.parametrize(
    "text",
    [
        *("🙂", "🙂" * 1000, "你好世界" * 500, "👨‍👩‍👧‍👦", "\n", "\t", " ", "é" * 999),
        *("\x7f\x01\x1f", "\U0010ffff"),
    ],
)
def test_more_ids_than_characters_fit(runtime, byte_runtime, text):
    assert _text(runtime, runtime.tokenize(text)) == b" " + text.encode()
    if text != " ":
        ids = byte_runtime.tokenize(text)
        assert _text(byte_runtime, ids) == (SPACE + text).encode()


def test_more_ids_than_bytes_fit(byte_runtime):
    ids = byte_runtime.tokenize(" " * 1000)
    assert len(ids) == 3 * 1001
    assert b"".join(byte_runtime.vocabulary.pieces[n] for n in ids) == SPACE.encode() * 1001


def test_a_megabyte_of_text_is_tokenized_whole(runtime):
    text = "hello world, the quick people make time. " * 25600
    ids = runtime.tokenize(text)
    assert _text(runtime, ids) == b" " + text.encode()


def test_a_fence_is_found_although_pieces_hold_control_characters(tmp_path):
    changes = [(400 + code, f"{chr(code)}x", NORMAL) for code in range(1, 31)]
    texts, scores, types = _vocabulary(changes=changes)
    runtime = _load(tmp_path / "m.gguf", texts, scores, types)
    for text in ("\x01x", "x\x1f", "hello", "\x1f\x1e\x05x"):
        assert runtime.tokenize(text, space_prefix=False) == _slow(text, (texts, scores, types))
    runtime.close()


def test_a_vocabulary_without_a_fence_is_refused(tmp_path):
    codes = [*range(1, 32), 127]
    changes = [(400 + i, f"{chr(code)}x", NORMAL) for i, code in enumerate(codes)]
    with pytest.raises(ModelFileError, match="control character"):
        _load(tmp_path / "m.gguf", *_vocabulary(changes=changes))


def test_many_threads_tokenize_at_once(runtime):
    texts = [f"hello 🙂 number {i} </s> \0 time" * 20 for i in range(8)]
    expected = [runtime.tokenize(text) for text in texts]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(50) if runtime.tokenize(texts[i]) != expected[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_while_others_tokenize_harms_nobody(tmp_path):
    runtime = _load(tmp_path / "m.gguf", *_vocabulary())
    text, outcomes = "hello world " * 2000, []

    def work() -> None:
        try:
            for _ in range(200):
                runtime.tokenize(text)
        except ModelNotLoaded:
            outcomes.append("closed")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    runtime.tokenize(text)
    runtime.close()
    for thread in threads:
        thread.join(60)
    assert outcomes == ["closed"] * 4
