"""The saved KV cache of a sequence: the library's bytes in a frame that tells whether they are
whole and whose they are. The library itself checks little of what it reads."""

from __future__ import annotations

import hashlib
import struct

from ...errors import InvalidRequest

_MAGIC = b"NITROKV1"
_HEADER = struct.Struct("<8s16s16sQ")  # magic, whose, digest of the rest, tokens


def pack(key: str, n_tokens: int, content: bytes) -> bytes:
    """The state of a sequence that holds `n_tokens`; `key` names the model and how it is loaded."""
    return _HEADER.pack(_MAGIC, _digest(key.encode()), _sum(n_tokens, content), n_tokens) + content


def unpack(key: str, state: bytes) -> tuple[int, bytes]:
    """The number of tokens and the library's bytes; raises InvalidRequest."""
    if len(state) < _HEADER.size or not state.startswith(_MAGIC):
        raise refusal("it is no saved state")
    _, whose, checksum, n_tokens = _HEADER.unpack_from(state)
    content = bytes(state[_HEADER.size :])
    if checksum != _sum(n_tokens, content):
        raise refusal("it is damaged")
    if whose != _digest(key.encode()):
        raise refusal("it is of another model, or of one loaded otherwise")
    return n_tokens, content


def refusal(reason: str) -> InvalidRequest:
    """What a state that does not fit raises."""
    return InvalidRequest(
        f"the state cannot be restored: {reason}",
        field="state",
        value=None,
        allowed="what `save` gave, of the same model loaded with the same options",
    )


def _sum(n_tokens: int, content: bytes) -> bytes:
    return _digest(struct.pack("<Q", n_tokens), content)


def _digest(*parts: bytes) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.digest()
