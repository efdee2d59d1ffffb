"""The numbers of the GGUF and GGML formats: value types of metadata, and tensor types with their
block sizes. Source: gguf.md and ggml.h of github.com/ggml-org/ggml."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["GGML_TYPES", "SCALARS", "VALUE_NAMES", "GGMLType"]

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

VALUE_NAMES = (
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64",
)  # fmt: skip

# Value type -> (struct of one value, numpy dtype of an array of them), little endian.
SCALARS: dict[int, tuple[struct.Struct, str]] = {
    U8: (struct.Struct("<B"), "u1"),
    I8: (struct.Struct("<b"), "i1"),
    U16: (struct.Struct("<H"), "<u2"),
    I16: (struct.Struct("<h"), "<i2"),
    U32: (struct.Struct("<I"), "<u4"),
    I32: (struct.Struct("<i"), "<i4"),
    F32: (struct.Struct("<f"), "<f4"),
    BOOL: (struct.Struct("<B"), "u1"),
    U64: (struct.Struct("<Q"), "<u8"),
    I64: (struct.Struct("<q"), "<i8"),
    F64: (struct.Struct("<d"), "<f8"),
}

INTEGERS = frozenset({U8, I8, U16, I16, U32, I32, U64, I64})


@dataclass(frozen=True, slots=True)
class GGMLType:
    """A tensor type: `block` weights are stored in `block_bytes` bytes."""

    number: int
    name: str
    block: int
    block_bytes: int


# Numbers that are missing (4, 5, 31-33, 36-38) were taken out of ggml.
GGML_TYPES: dict[int, GGMLType] = {
    number: GGMLType(number, name, block, block_bytes)
    for number, name, block, block_bytes in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
    )
}
