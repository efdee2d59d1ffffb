"""For any metadata: what is written is read back. For any bytes: the reader refuses or reads."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import gguf_draft as gd
from support.gguf_draft import Draft, Value
from support.gguf_mutations import mutate

from nitrolib.errors import ModelFileError
from nitrolib.gguf import CTRANSFORMERS, ModelInfo, open_gguf, verify

if TYPE_CHECKING:
    from pathlib import Path

INTEGERS = {
    gd.U8: (0, 2**8 - 1), gd.I8: (-(2**7), 2**7 - 1), gd.U16: (0, 2**16 - 1),
    gd.I16: (-(2**15), 2**15 - 1), gd.U32: (0, 2**32 - 1), gd.I32: (-(2**31), 2**31 - 1),
    gd.U64: (0, 2**64 - 1), gd.I64: (-(2**63), 2**63 - 1),
}  # fmt: skip
ELEMENTS: dict[int, st.SearchStrategy[Any]] = {
    **{kind: st.integers(low, high) for kind, (low, high) in INTEGERS.items()},
    gd.F32: st.floats(width=32, allow_nan=False),
    gd.F64: st.floats(allow_nan=False),
    gd.BOOL: st.booleans(),
    gd.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
}
SCALARS = st.sampled_from(sorted(ELEMENTS)).flatmap(
    lambda kind: ELEMENTS[kind].map(lambda data: Value(kind, data))
)
ARRAYS = st.sampled_from(sorted(ELEMENTS)).flatmap(
    lambda kind: st.lists(ELEMENTS[kind], max_size=20).map(lambda data: gd.array(kind, data))
)
KEYS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=30)
METADATA = st.dictionaries(
    KEYS.filter(lambda key: key != "general.alignment"), SCALARS | ARRAYS, max_size=12
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "m.gguf"


def outcome(path: Path) -> tuple[ModelFileError | None, ModelInfo | None]:
    try:
        return None, verify(path, CTRANSFORMERS)
    except ModelFileError as error:
        return error, None


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


@settings(max_examples=500, deadline=None)
@given(metadata=METADATA, version=st.sampled_from([2, 3]))
def test_metadata_of_any_type_is_read_back(
    path: Path, metadata: dict[str, Value], version: int
) -> None:
    path.unlink(missing_ok=True)
    file = open_gguf(Draft(metadata=list(metadata.items()), version=version).write(path))
    assert list(file.metadata) == list(metadata)
    for key, value in metadata.items():
        found = file.metadata[key]
        if value.element == gd.STRING:
            assert list(found) == value.data
        else:
            assert plain(found) == value.data
        assert file.metadata.entry(key).type == value.type


@settings(max_examples=500, deadline=None)
@given(metadata=METADATA, cut=st.floats(0, 1, exclude_max=True))
def test_no_part_of_a_header_passes_for_the_whole(
    path: Path, metadata: dict[str, Value], cut: float
) -> None:
    header, _ = Draft(metadata=list(metadata.items()), alignment=1).header()
    path.unlink(missing_ok=True)
    path.write_bytes(header[: int(cut * len(header))])
    with pytest.raises(ModelFileError):
        open_gguf(path)


@settings(max_examples=500, deadline=None)
@given(
    raw=st.binary(max_size=300),
    counts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    version=st.sampled_from([2, 3]),
)
def test_any_bytes_are_read_or_refused(
    path: Path, raw: bytes, counts: tuple[int, int], version: int
) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, *counts) + raw)
    try:
        file = open_gguf(path)
    except ModelFileError:
        return
    assert len(file.metadata) == counts[1]
    assert len(file.tensors) == counts[0]


@settings(max_examples=500, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_refusal_lies_inside_the_file_and_a_pass_is_consistent(path: Path, seed: int) -> None:
    raw, _ = mutate(random.Random(seed))
    path.unlink(missing_ok=True)
    path.write_bytes(raw)
    refusal, info = outcome(path)
    if refusal is not None:
        assert refusal.path == str(path)
        assert refusal.offset is None or 0 <= refusal.offset <= len(raw)
        return
    assert info == ModelInfo.from_file(path)
    assert info is not None
    assert info.file_bytes == len(raw)
    for tensor in open_gguf(path).tensors.values():
        assert 0 < tensor.data_offset <= tensor.data_offset + tensor.n_bytes <= len(raw)
