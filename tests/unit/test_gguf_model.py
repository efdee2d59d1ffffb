"""ModelInfo: plain data about a model, of any architecture."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
from support import gguf_draft as gd
from support.gguf_draft import Value, array, string, u32
from support.gguf_maker import CHATML, llama_draft, make_llama

from nitrolib.errors import ModelFileError
from nitrolib.gguf import ModelInfo

if TYPE_CHECKING:
    from pathlib import Path


def test_it_says_what_the_file_says(tmp_path: Path) -> None:
    path = make_llama(tmp_path / "m.gguf", quant="Q8_0", chat_template=CHATML, name="Tiny")
    info = ModelInfo.from_file(path)
    assert info.path == str(path)
    assert info.file_bytes == info.identity.size == path.stat().st_size
    assert (info.architecture, info.name, info.tokenizer) == ("llama", "Tiny", "llama")
    assert (info.n_ctx_train, info.n_vocab, info.n_embd, info.n_layer) == (512, 512, 64, 2)
    assert (info.n_head, info.n_head_kv, info.n_ff) == (4, 2, 128)
    assert (info.head_size, info.value_size) == (16, 16)
    assert info.chat_template == CHATML
    assert info.tensor_types == (("Q8_0", 16), ("F32", 5))
    assert info.quantization == "Q8_0"
    matrices = 2 * 512 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    assert info.n_params == matrices + 5 * 64
    assert info.tensor_bytes == matrices // 32 * 34 + 5 * 64 * 4
    assert info.split_count == 1


def test_it_crosses_a_process_boundary(tmp_path: Path) -> None:
    info = ModelInfo.from_file(make_llama(tmp_path / "m.gguf"))
    assert pickle.loads(pickle.dumps(info)) == info
    assert hash(info) == hash(pickle.loads(pickle.dumps(info)))


def test_sizes_for_every_layer_give_the_largest(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["llama.attention.head_count_kv"] = array(gd.U32, [1, 4])
    draft["llama.feed_forward_length"] = array(gd.I32, [64, 128])
    draft["llama.attention.key_length"] = u32(24)
    info = ModelInfo.from_file(draft.write(tmp_path / "m.gguf"))
    assert (info.n_head_kv, info.n_ff, info.head_size, info.value_size) == (4, 128, 24, 16)


def test_a_file_that_says_little_is_described_all_the_same(tmp_path: Path) -> None:
    draft = llama_draft()
    draft.metadata = [("general.architecture", string("new"))]
    info = ModelInfo.from_file(draft.write(tmp_path / "m.gguf"))
    assert (info.architecture, info.name, info.n_layer, info.n_ctx_train) == ("new", None, 0, 0)
    assert info.n_vocab == 512  # from the embedding
    assert info.chat_template is None


@pytest.mark.parametrize("value", [Value(gd.F32, 1.0), Value(gd.I32, -1), array(gd.F32, [1.0])])
def test_an_impossible_size_is_refused(tmp_path: Path, value: Value) -> None:
    draft = llama_draft()
    draft["llama.block_count"] = value
    with pytest.raises(ModelFileError) as caught:
        ModelInfo.from_file(draft.write(tmp_path / "m.gguf"))
    assert caught.value.key == "llama.block_count"


def test_a_part_of_a_split_model_says_which(tmp_path: Path) -> None:
    draft = llama_draft()
    draft.metadata = [("split.no", Value(gd.U16, 2)), ("split.count", Value(gd.U16, 3))]
    with pytest.raises(ModelFileError, match="part 3 of a model cut into 3") as caught:
        ModelInfo.from_file(draft.write(tmp_path / "m.gguf"))
    assert caught.value.unsupported
