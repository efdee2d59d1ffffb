"""The normalisation table of SentencePiece unigram vocabularies, and whether every way through it
ends inside it."""

from __future__ import annotations

import struct

import numpy as np

__all__ = ["charsmap_fault"]


def charsmap_fault(blob: bytes) -> str:
    """What is wrong with a table, "" if nothing is.

    Four bytes give the size of an XOR-compressed double array (Kanda, "Space- and Time-Efficient
    String Dictionaries", 2018); behind it are the replacements, each ended by a NUL. A node holds
    the offset of its children in bits 10-30 (times 256 if bit 9 is set), in bit 8 whether a prefix
    ends there, in bits 0-7 its own byte. The child of a node for byte c lies at offset XOR c.
    """
    if len(blob) < 4:
        return "it is too short for its own size"
    (size,) = struct.unpack_from("<I", blob)
    if size % 4 or not 4 <= size < len(blob) - 4:
        return f"{size} bytes of nodes in {len(blob)} bytes"
    nodes = np.frombuffer(blob, "<u4", size // 4, 4).astype(np.int64)
    replacements = blob[4 + size :]
    if replacements[-1:] != b"\0":
        return "its last replacement has no end"
    return _walk(nodes, len(replacements))


def _walk(nodes: np.ndarray, n_replacements: int) -> str:
    """Visit every node that some text leads to, a level at a time."""
    offsets = (nodes >> 10) << ((nodes & (1 << 9)) >> 6)
    labels = nodes & ((1 << 31) | 0xFF)
    ends = (nodes >> 8) & 1
    values = nodes & ((1 << 31) - 1)
    every_byte = np.arange(1, 256)
    seen = np.zeros(nodes.size, np.bool_)
    bases = offsets[:1]
    while bases.size:
        children = bases[:, None] ^ every_byte
        if children.max() >= nodes.size:
            return f"a node leads to number {children.max()} of {nodes.size}"
        found = children[labels[children] == every_byte]
        # The library comes to a node's children from the node's own number.
        after = found ^ offsets[found]
        if after.size and after.max() >= nodes.size:
            return f"a node leads to number {after.max()} of {nodes.size}"
        leaves = after[ends[found] == 1]
        if leaves.size and values[leaves].max() >= n_replacements:
            return "a replacement lies behind the end"
        fresh = ~seen[found]
        seen[found] = True
        bases = np.unique(after[fresh])
    return ""
