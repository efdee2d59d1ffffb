"""The reader: decodes what is asked for, agrees with other writers and readers, keeps to bounds."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from support import gguf_draft as gd
from support.gguf_draft import Draft, Value, array, f32, string, u32
from support.gguf_maker import llama_draft, make_llama

from nitrolib.errors import ModelFileError
from nitrolib.gguf import StringArray, open_gguf, read_gguf

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = [
    (gd.U8, 255), (gd.I8, -128), (gd.U16, 65535), (gd.I16, -32768), (gd.U32, 2**32 - 1),
    (gd.I32, -(2**31)), (gd.F32, 0.5), (gd.BOOL, 1), (gd.U64, 2**64 - 1), (gd.I64, -(2**63)),
    (gd.F64, 1e300),
]  # fmt: skip


def written(path: Path, **values: Value) -> Path:
    return Draft(metadata=list(values.items())).write(path / "m.gguf")


@pytest.mark.parametrize("version", [2, 3])
def test_every_scalar_type_is_read_back(tmp_path: Path, version: int) -> None:
    draft = Draft(metadata=[(f"k{kind}", Value(kind, value)) for kind, value in NUMBERS])
    draft.version = version
    file = open_gguf(draft.write(tmp_path / "m.gguf"))
    assert file.version == version
    assert dict(file.metadata) == {f"k{kind}": value for kind, value in NUMBERS}
    assert file.metadata[f"k{gd.BOOL}"] is True


def test_arrays_of_every_type_are_read_back(tmp_path: Path) -> None:
    draft = Draft(metadata=[(f"k{k}", array(k, [0, v, 0])) for k, v in NUMBERS])
    draft.metadata.append(("texts", array(gd.STRING, ["", "a", "\u2581\u00e9"])))
    draft.metadata.append(("none", array(gd.F32, [])))
    draft.metadata.append(("no texts", array(gd.STRING, [])))
    metadata = open_gguf(draft.write(tmp_path / "m.gguf")).metadata
    for kind, value in NUMBERS:
        assert metadata[f"k{kind}"].tolist() == [0, value, 0]
        assert not metadata[f"k{kind}"].flags.writeable or kind == gd.BOOL
    texts = metadata["texts"]
    assert isinstance(texts, StringArray)
    assert list(texts) == ["", "a", "\u2581\u00e9"]
    assert texts[1:] == ["a", "\u2581\u00e9"]
    assert texts.raw() == [b"", b"a", "\u2581\u00e9".encode()]
    assert metadata["none"].size == len(metadata["no texts"]) == 0


def test_strings_that_are_not_utf_8_are_shown_and_kept(tmp_path: Path) -> None:
    metadata = open_gguf(written(tmp_path, name=string(b"caf\xe9"))).metadata
    assert metadata["name"] == "caf\ufffd"
    assert metadata.raw("name") == b"caf\xe9"


def test_typed_getters_name_a_key_of_another_type(tmp_path: Path) -> None:
    file = open_gguf(
        written(tmp_path, a=u32(7), b=f32(0.5), c=string("x"), d=Value(gd.BOOL, 1), e=array(4, [1]))
    )
    metadata = file.metadata
    assert metadata.integer("a") == 7
    assert metadata.number("b") == 0.5
    assert metadata.text("c") == "x"
    assert metadata.flag("d") is True
    assert metadata.integer("z") is metadata.number("z") is metadata.text("z") is None
    for getter, key in (
        (metadata.integer, "b"), (metadata.integer, "d"), (metadata.number, "a"),
        (metadata.text, "a"), (metadata.flag, "a"), (metadata.strings, "e"),
        (metadata.numbers, "c"),
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match="is expected") as caught:
            getter(key)
        assert caught.value.key == key
        assert caught.value.offset == metadata.entry(key).offset


def test_tensors_are_where_the_file_has_them(tmp_path: Path) -> None:
    draft = llama_draft(quant="Q8_0")
    path = draft.write(tmp_path / "m.gguf")
    file, raw = open_gguf(path), path.read_bytes()
    assert file.data_offset == draft.header()[1]["data"]
    assert list(file.tensors) == [name for name, _ in draft.tensors]
    for name, tensor in draft.tensors:
        info = file.tensors[str(name)]
        assert info.shape == tuple(tensor.shape)
        data = raw[info.data_offset : info.data_offset + info.n_bytes]
        assert data == b"".join(tensor.data())


def test_the_gguf_package_reads_what_the_maker_writes(tmp_path: Path) -> None:
    path = make_llama(tmp_path / "m.gguf", quant="Q4_0", chat_template="x")
    ours, theirs = open_gguf(path), gguf.GGUFReader(path)
    assert [t.name for t in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        info = ours.tensors[tensor.name]
        assert tensor.data_offset == info.data_offset
        assert tensor.shape.tolist() == list(info.shape)
        assert tensor.n_bytes == info.n_bytes
        assert tensor.tensor_type.name == info.type.name
    for key, value in ours.metadata.items():
        content = theirs.get_field(key).contents()
        assert content == (value if isinstance(value, (int, float, str)) else list(value))


def test_what_the_gguf_package_writes_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_custom_alignment(64)
    writer.add_block_count(3)
    writer.add_token_list(["a", "b\u00e9"])
    writer.add_array("x.floats", [0.5, 1.5])
    writer.add_bool("x.flag", False)
    writer.add_float64("x.double", 1e-300)
    writer.add_tensor("t", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("h", np.ones(5, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = open_gguf(tmp_path / "m.gguf")
    assert file.alignment == 64
    assert file.metadata["llama.block_count"] == 3
    assert list(file.metadata["tokenizer.ggml.tokens"]) == ["a", "b\u00e9"]
    assert file.metadata["x.floats"].tolist() == [0.5, 1.5]
    assert file.metadata["x.flag"] is False
    assert file.metadata["x.double"] == 1e-300
    assert file.tensors["t"].shape == (4, 3)
    assert file.tensors["h"].type.name == "F16"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(
        tmp_path_factory.mktemp("large") / "m.gguf", n_vocab=152_064, quant="Q4_0", seed=3
    )


def test_a_large_vocabulary_is_stepped_over_until_it_is_asked_for(large: Path) -> None:
    open_gguf(large)
    gc.collect()
    before = sys.getallocatedblocks()
    file = open_gguf(large)
    assert sys.getallocatedblocks() - before < 2000  # 152 064 strings would be more
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 152_064
    assert sys.getallocatedblocks() - before < 2000
    tokens = file.metadata["tokenizer.ggml.tokens"]
    assert (tokens[1], tokens[-1]) == ("<s>", "<|im_end|>")
    assert sys.getallocatedblocks() - before > 100_000
    assert len(file.metadata["tokenizer.ggml.scores"]) == 152_064


def test_a_large_header_cut_anywhere_is_refused(large: Path, tmp_path: Path) -> None:
    raw = large.read_bytes()
    path = tmp_path / "m.gguf"
    for size in range(1000, 3_900_000, 390_001):
        path.write_bytes(raw[:size])
        with pytest.raises(ModelFileError, match=r"cut or damaged|cannot lie"):
            open_gguf(path)


def test_a_claimed_array_of_millions_of_strings_is_not_walked(tmp_path: Path) -> None:
    value = array(gd.STRING, [])
    value.count = 1 << 23
    path = Draft(metadata=[("x", value)]).write(tmp_path / "m.gguf")
    with path.open("r+b") as file:
        file.truncate(1 << 27)  # zeros: each would be an empty string; no disk is taken
    with pytest.raises(ModelFileError, match="at most") as caught:
        open_gguf(path)
    assert caught.value.key == "x"


def test_a_header_larger_than_any_real_one_is_refused(tmp_path: Path) -> None:
    value = array(gd.U8, [])
    value.count = 300 << 20
    path = Draft(metadata=[("x", value)]).write(tmp_path / "m.gguf")
    with path.open("r+b") as file:
        file.truncate(400 << 20)
    with pytest.raises(ModelFileError, match="header is longer"):
        open_gguf(path)


@pytest.mark.parametrize("most", [1 << 20, 4096, 7])
def test_a_file_on_its_way_is_read_as_the_file_itself(tmp_path: Path, most: int) -> None:
    path = make_llama(tmp_path / "m.gguf")
    here = open_gguf(path)
    with path.open("rb") as file:
        away = read_gguf("m.gguf", here.n_bytes, lambda n: file.read(min(n, most)))
        read = file.tell()
    assert dict(away.metadata.items()).keys() == dict(here.metadata.items()).keys()
    assert away.tensors == here.tensors
    assert (away.n_bytes, away.data_offset) == (here.n_bytes, here.data_offset)
    assert read < here.n_bytes or here.n_bytes < 256 << 10  # the weights were not waited for


def test_a_file_on_its_way_that_ends_early_or_fails_is_told(tmp_path: Path) -> None:
    data = make_llama(tmp_path / "m.gguf").read_bytes()
    pieces = iter([data[:100], b""])
    with pytest.raises(ModelFileError, match="became shorter"):
        read_gguf("m.gguf", len(data), lambda n: next(pieces))
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        read_gguf("m.gguf", len(data), lambda n: b"<html>".ljust(n))

    def broken(n: int) -> bytes:
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        read_gguf("m.gguf", len(data), broken)
