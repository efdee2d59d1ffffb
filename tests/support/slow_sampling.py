"""The samplers once more, written from their definitions with lists and loops: slow, plain, and
the measure of the fast ones.

Candidates are lists of (id, logit). Where a decision hangs on a running sum of probabilities,
`Close` is raised if the sum comes so near to its target that rounding decides.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nitrolib.sampling import SamplingParams

Plain = list[tuple[int, float]]

MARGIN = 1e-9


class Close(Exception):
    """Rounding decides this case: either answer is right."""


def float32(x: float) -> float:
    """The nearest float32; too large a number is the largest one, too small a one -inf."""
    if math.isinf(x):
        return x
    try:
        return struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return 3.4028234663852886e38 if x > 0 else -math.inf


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def probabilities(candidates: Plain) -> list[float]:
    return softmax([logit for _, logit in candidates])


def descending(candidates: Plain) -> Plain:
    return sorted(candidates, key=lambda candidate: -candidate[1])


def top_k(candidates: Plain, k: int) -> Plain:
    return descending(candidates)[:k] if k > 0 else candidates


def top_p(candidates: Plain, p: float, min_keep: int = 0) -> Plain:
    if p >= 1:
        return candidates
    candidates = descending(candidates)
    total = 0.0
    for count, probability in enumerate(probabilities(candidates), start=1):
        total += probability
        if abs(total - p) < MARGIN:
            raise Close
        if total >= p and count >= min_keep:
            return candidates[:count]
    return candidates


def min_p(candidates: Plain, p: float, min_keep: int = 0) -> Plain:
    if p <= 0:
        return candidates
    cut = max(logit for _, logit in candidates) + math.log(p)
    kept = [candidate for candidate in candidates if candidate[1] >= cut]
    least = max(1, min_keep)
    return kept if len(kept) >= least else descending(candidates)[:least]


def temperature(candidates: Plain, t: float) -> Plain:
    if t > 0:
        return [(token_id, logit / t) for token_id, logit in candidates]
    top = max(logit for _, logit in candidates)
    best = next(i for i, (_, logit) in enumerate(candidates) if logit == top)
    return [
        (token_id, logit if i == best else -math.inf)
        for i, (token_id, logit) in enumerate(candidates)
    ]


def dist(candidates: Plain, u: float) -> int:
    total = 0.0
    for (token_id, _), probability in zip(candidates, probabilities(candidates), strict=True):
        total += probability
        if abs(total - u) < MARGIN and probability < 1 - MARGIN:
            raise Close
        if total >= u and probability > 0:
            return token_id
    raise Close


def biased(row: list[float], params: SamplingParams, banned: tuple[int, ...] = ()) -> list[float]:
    row = list(row)
    amounts: dict[int, float] = {}
    for token_id, bias in params.logit_bias:
        amounts[token_id] = amounts.get(token_id, 0.0) + bias
    for token_id in banned:
        amounts[token_id] = -math.inf
    for token_id, amount in amounts.items():
        row[token_id] = float32(row[token_id] + amount)
    return row


def penalised(row: list[float], history: list[int], params: SamplingParams, n: int) -> list[float]:
    """*n* is the context length."""
    row = list(row)
    size = n if params.repeat_last_n == -1 else params.repeat_last_n
    for token_id, count in Counter(history[-size:] if size else []).items():
        logit = row[token_id]
        logit = logit * params.repeat_penalty if logit <= 0 else logit / params.repeat_penalty
        logit -= count * params.frequency_penalty + params.presence_penalty
        row[token_id] = float32(logit)
    return row


def sample(
    row: list[float],
    history: list[int],
    params: SamplingParams,
    *,
    u: float,
    context_length: int,
    banned: tuple[int, ...] = (),
) -> int:
    """The default chain of what is honoured."""
    row = penalised(biased(row, params, banned), history, params, context_length)
    candidates = top_k(list(enumerate(row)), params.top_k)
    candidates = top_p(candidates, params.top_p)
    candidates = min_p(candidates, params.min_p)
    candidates = temperature(candidates, params.temperature)
    return dist(candidates, u)


class MersenneTwister:
    """MT19937 as in the paper of M. Matsumoto and T. Nishimura (1998), seeded as in 2002."""

    def __init__(self, seed: int) -> None:
        self.words = [seed]
        for i in range(1, 624):
            last = self.words[-1]
            self.words.append((1812433253 * (last ^ last >> 30) + i) % 2**32)
        self.index = 624

    def next(self) -> int:
        if self.index == 624:
            for i in range(624):
                mixed = self.words[i] & 0x80000000 | self.words[(i + 1) % 624] & 0x7FFFFFFF
                twist = mixed >> 1 ^ (0x9908B0DF if mixed & 1 else 0)
                self.words[i] = self.words[(i + 397) % 624] ^ twist
            self.index = 0
        y = self.words[self.index]
        self.index += 1
        y ^= y >> 11
        y ^= y << 7 & 0x9D2C5680
        y ^= y << 15 & 0xEFC60000
        return y ^ y >> 18

    def double(self) -> float:
        low, high = self.next(), self.next()
        return (low + high * 2**32) / 2**64
