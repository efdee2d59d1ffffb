"""Dialogues as token sequences with targets, gathered into batches of similar length."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .corpus import dialogue, plain_text, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sentencepiece

BOS, EOS = 1, 2
NO_LOSS = -100
PLAIN_SHARE = 0.05
POOL = 1500  # sequences that are sorted by length together


def encode(
    tokenizer: sentencepiece.SentencePieceProcessor, text: str, answers: list[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """Tokens of the whole *text* and, for each, the target that follows it.

    Only answers are learnt. The target of the last token of an answer is the end token, although
    the next input is the newline of the history: so one sequence teaches all turns at once.

    The pieces between the answers are encoded apart. That gives the tokens of the whole text,
    because no piece reaches over a newline or over the space behind "ASSISTANT:".
    """
    tokens, targets = [BOS], [NO_LOSS]
    end = 0
    for start, stop in answers:
        # a leading newline makes SentencePiece's own leading space a piece of its own: drop it
        between = tokenizer.encode(text[end:start])[1 if end else 0 :]
        answer = tokenizer.encode(text[start + 1 : stop])  # SentencePiece gives the space back
        tokens += between + answer
        targets += [NO_LOSS] * (len(between) - 1) + answer + [EOS]
        end = stop
    return tokens, targets


def encode_plain(
    tokenizer: sentencepiece.SentencePieceProcessor, text: str
) -> tuple[list[int], list[int]]:
    """Tokens and targets of a *text* that is learnt as a whole."""
    tokens = tokenizer.encode(text)
    return [BOS, *tokens], [*tokens, EOS]


def sequences(
    tokenizer: sentencepiece.SentencePieceProcessor, split: str
) -> Iterator[tuple[list[int], list[int]]]:
    """An endless stream; *split* ("train" or "held-out") is the first half of every seed."""
    index = 0
    while True:
        seed = f"{split}:{index}"
        if Random(f"kind {seed}").random() < PLAIN_SHARE:
            yield encode_plain(tokenizer, plain_text(seed))
        else:
            yield encode(tokenizer, *render(dialogue(seed)))
        index += 1


def batches(
    tokenizer: sentencepiece.SentencePieceProcessor, split: str, size: int, context: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (tokens, targets), each (rows, time) int64 of at most about *size* tokens.

    Sequences start at position 0, as they do when the model is used, and longer ones are cut.
    """
    stream = sequences(tokenizer, split)
    shuffle = Random(split)
    while True:
        pool = sorted((next(stream) for _ in range(POOL)), key=lambda pair: len(pair[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for pair in pool:
            width = min(len(pair[0]), context)
            if (len(groups[-1]) + 1) * width > size and groups[-1]:
                groups.append([])
            groups[-1].append(pair)
        shuffle.shuffle(groups)
        for group in groups:
            yield _pad(group, context)


def _pad(group: list[tuple[list[int], list[int]]], context: int) -> tuple[Tensor, Tensor]:
    width = min(max(len(tokens) for tokens, _ in group), context)
    inputs = np.full((len(group), width), EOS, dtype=np.int64)
    targets = np.full((len(group), width), NO_LOSS, dtype=np.int64)
    for row, (sequence, target) in enumerate(group):
        inputs[row, : len(sequence)] = sequence[:width]
        targets[row, : len(target)] = target[:width]
    return torch.from_numpy(inputs), torch.from_numpy(targets)
