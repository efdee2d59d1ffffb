"""A llama_batch over numpy memory: allocated once, filled by slices for every decode."""

from __future__ import annotations

import ctypes
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence


class Batch:
    """Memory for `n_max` tokens; `native` is the structure that llama_decode is given.

    The structure points into the arrays: they live as long as this object does.
    """

    def __init__(self, structure: Any, n_max: int, n_vocab: int, n_positions: int) -> None:
        self._n_vocab = n_vocab
        self._token = np.zeros(n_max, np.int32)
        self._pos = np.zeros(n_max, np.int32)
        self._seq = np.zeros(n_max, np.int32)
        self._out = np.zeros(n_max, np.int8)
        self._one = np.ones(n_max, np.int32)
        # seq_id is an array of pointers, here to one sequence id each.
        step = self._seq.itemsize * np.arange(n_max, dtype=np.uint64)
        self._pointers = np.uint64(self._seq.ctypes.data) + step
        self._ramp = np.arange(n_positions, dtype=np.int32)
        arrays = {
            "token": self._token,
            "pos": self._pos,
            "n_seq_id": self._one,
            "seq_id": self._pointers,
            "logits": self._out,
        }
        types = dict(structure._fields_)
        self.native = structure()
        for field, memory in arrays.items():
            setattr(self.native, field, ctypes.cast(memory.ctypes.data, types[field]))
        self._token_at, self._pos_at = self._token.data, self._pos.data
        self.n = 0

    def clear(self) -> None:
        """Begin anew."""
        self.n = 0

    def add_one(self, seq: int, token: int, position: int, output: bool) -> None:
        """Append a token that is known to be an int in the vocabulary."""
        n = self.n
        self._token[n] = token
        self._pos[n] = position
        self._seq[n] = seq
        self._out[n] = output
        self.n = n + 1

    def advance(self, tokens: Sequence[int]) -> None:
        """Take the next token of each entry, at the next position. Raises InvalidRequest for what
        is no token id, and has changed nothing then."""
        # Plain loops: numpy's ways for a handful of numbers are cold after an evaluation, and take
        # ten times as long as these.
        n_vocab, token_at, pos_at = self._n_vocab, self._token_at, self._pos_at
        for token in tokens:
            if type(token) is not int or not 0 <= token < n_vocab:
                raise self.refusal(tokens)
        for index, token in enumerate(tokens):
            token_at[index] = token
            pos_at[index] += 1

    def add(self, seq: int, tokens: Sequence[int], position: int, outputs: int) -> None:
        """Append tokens of one sequence, with output of the last `outputs` of them. Raises
        InvalidRequest for what is no token id; the caller has seen to the room."""
        start, end = self.n, self.n + len(tokens)
        self._token[start:end] = self.checked(tokens)
        self._pos[start:end] = self._ramp[position : position + end - start]
        self._seq[start:end] = seq
        self._out[start:end] = 0
        self._out[end - outputs : end] = 1
        self.n = end

    def checked(self, tokens: Any) -> Any:
        """Ids as int32, each of which is in the vocabulary: an id outside would fail the whole
        batch, and with it the requests of others. Raises InvalidRequest."""
        try:
            if isinstance(tokens, np.ndarray):
                if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
                    raise self.refusal(tokens)
                ids = tokens
                if ids.dtype != np.int32 and not (ids.min() >= 0 and ids.max() < self._n_vocab):
                    raise self.refusal(tokens)
                ids = ids.astype(np.int32, copy=False)
            else:
                ids = np.frombuffer(array("i", tokens), np.int32)
        except (TypeError, OverflowError, ValueError):
            raise self.refusal(tokens) from None
        # As unsigned numbers negative ones are large: one pass sees both ends.
        if np.maximum.reduce(ids.view(np.uint32)) >= self._n_vocab:
            raise self.refusal(tokens)
        return ids

    def refusal(self, tokens: Any) -> InvalidRequest:
        """The error that names the first of `tokens` that is no token id."""
        flat = list(np.asarray(tokens, object).ravel()) if not isinstance(tokens, int) else [tokens]
        wrong = [
            token
            for token in flat
            if not isinstance(token, (int, np.integer))
            or isinstance(token, bool)
            or not 0 <= token < self._n_vocab
        ]
        return InvalidRequest(
            f"{wrong[0] if wrong else tokens!r} is not a token id",
            field="tokens",
            value=wrong[0] if wrong else None,
            allowed=f"whole numbers from 0 to {self._n_vocab - 1}",
        )
