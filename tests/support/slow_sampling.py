"""The samplers once more, written from their definitions with lists and loops: slow, plain, and
the measure of the fast ones.

Candidates are lists of (id, logit). Where a decision hangs on a running sum of probabilities,
`Close` is raised if the sum comes so near to its target that rounding decides.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

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


def typical(candidates: Plain, p: float, min_keep: int = 0) -> Plain:
    if p >= 1:
        return candidates
    candidates = descending(candidates)
    entries = [(c, q) for c, q in zip(candidates, probabilities(candidates), strict=True)]
    entropy = -sum(q * math.log(q) for _, q in entries if q > 0)
    scored = [(abs(-math.log(q) - entropy) if q > 0 else math.inf, c, q) for c, q in entries]
    scored.sort(key=lambda entry: entry[0])
    scores = sorted({score for score, _, _ in scored})
    if any(0 < b - a < MARGIN for a, b in itertools.pairwise(scores)):
        raise Close
    total, kept = 0.0, []
    for _, candidate, q in scored:
        kept.append(candidate)
        total += q
        if abs(total - p) < MARGIN:
            raise Close
        if total > p and len(kept) >= max(1, min_keep):
            return kept
    return kept


def top_n_sigma(candidates: Plain, n: float) -> Plain:
    finite = [logit for _, logit in candidates if logit > -math.inf]
    if n <= 0 or len(candidates) <= 1:
        return candidates
    mean = sum(finite) / len(finite)
    sigma = math.sqrt(sum((logit - mean) * (logit - mean) for logit in finite) / len(finite))
    if not math.isfinite(sigma):
        raise Close
    cut = max(finite) - n * sigma
    if any(abs(logit - cut) < 1e-5 for logit in finite):
        raise Close
    return [(token_id, logit if logit >= cut else -math.inf) for token_id, logit in candidates]


def xtc(candidates: Plain, probability: float, threshold: float, min_keep: int, u: float) -> Plain:
    """*u* is drawn where there are two candidates or more."""
    if len(candidates) < 2 or u > probability:
        return candidates
    candidates = descending(candidates)
    good = 0
    for q in probabilities(candidates):
        if abs(q - threshold) < MARGIN:
            raise Close
        if q < threshold or q == 0:
            break
        good += 1
    if good > 1 and len(candidates) - (good - 1) >= min_keep:
        return candidates[good - 1 :]
    return candidates


def dynatemp(candidates: Plain, t: float, spread: float, exponent: float) -> tuple[Plain, float]:
    """The candidates as it leaves them, logits not yet divided, and the temperature."""
    if spread <= 0:
        return candidates, t
    if len(candidates) <= 1:
        return candidates, 1.0
    candidates = descending(candidates)
    entropy = -sum(q * math.log(q) for q in probabilities(candidates) if q > 0)
    share = entropy / math.log(len(candidates))
    if 0 < abs(share) < MARGIN:
        raise Close
    low, high = max(0.0, t - spread), t + spread
    return candidates, low + (high - low) * max(share, 0.0) ** exponent


def heated(candidates: Plain, t: float, spread: float, exponent: float) -> Plain:
    candidates, t = dynatemp(candidates, t, spread, exponent)
    if t > 0 and not math.isfinite(max(logit for _, logit in candidates) / t):
        t = 0.0
    return candidates if t == 1 else temperature(candidates, t)


def dry(
    history: list[int],
    params: SamplingParams,
    context_length: int,
    single: set[int],
    tails: dict[int, list[tuple[int, ...]]],
) -> dict[int, float]:
    """What is to be subtracted from the logit of each token, by the definition."""
    size = context_length if params.dry_penalty_last_n == -1 else params.dry_penalty_last_n
    allowed = params.dry_allowed_length
    newest = (history[-size:] if size else [])[::-1]
    n = len(newest)
    if params.dry_multiplier == 0 or n <= allowed:
        return {}
    limit = n
    for i, head in enumerate(newest):
        complete = [
            tail
            for tail in [*([()] if head in single else []), *tails.get(head, [])]
            if len(tail) <= i and list(tail) == newest[i - len(tail) : i][::-1]
        ]
        lengths = list(map(len, complete))
        if lengths:
            limit = i - max(lengths)
            break
    if limit < allowed:
        return {}
    longest: dict[int, int] = {}
    for k in range(1, n):
        m = 0
        while m < limit and k + m < n and newest[m] == newest[k + m]:
            m += 1
        if m >= allowed:
            longest[newest[k - 1]] = max(longest.get(newest[k - 1], 0), m)
    most = math.inf
    if params.dry_base > 1.000001:
        most = int(88.7228391 / math.log(params.dry_base))
    return {
        token: params.dry_multiplier * params.dry_base ** min(m - allowed, most)
        for token, m in longest.items()
        if token not in single
    }


class Mirostat:
    """One generation, on whole rows."""

    def __init__(self, params: SamplingParams, n_vocab: int) -> None:
        self.params, self.n_vocab = params, n_vocab
        self.mu = 2 * params.mirostat_tau

    def kept(self, row: list[float]) -> Plain:
        t = self.params.temperature
        candidates = list(enumerate(row))
        candidates = descending(candidates if t == 1 else temperature(candidates, t))
        return self.probable(candidates) if self.params.mirostat == 2 else self.zipf(candidates)

    def probable(self, candidates: Plain) -> Plain:
        count = 0
        for q in probabilities(candidates):
            bits = -math.log2(q) if q > 0 else math.inf
            if abs(bits - self.mu) < MARGIN:
                raise Close
            if bits > self.mu:
                break
            count += 1
        return candidates[: max(1, count)]

    def zipf(self, candidates: Plain) -> Plain:
        logits = [logit for _, logit in candidates[:100]]
        if len(logits) < 2 or logits[-1] == -math.inf:
            return candidates[:1]
        over = under = 0.0
        for i in range(len(logits) - 1):
            t = math.log((i + 2) / (i + 1))
            over += t * (logits[i] - logits[i + 1])
            under += t * t
        s = over / under
        e = s - 1
        if abs(e) < 1e-6 or s < 1e-6:
            raise Close
        try:
            k = ((e * 2**self.mu) / (1 - self.n_vocab**-e)) ** (1 / s)
        except OverflowError:
            k = self.n_vocab
        if abs(k - round(k)) < 1e-6 * k:
            raise Close
        return candidates[: max(1, int(min(k, self.n_vocab)))]

    def sample(self, row: list[float], uniform: Callable[[], float]) -> int:
        kept = self.kept(row)
        token = kept[0][0] if len(kept) == 1 else dist(kept, uniform())
        q = probabilities(kept)[[token_id for token_id, _ in kept].index(token)]
        self.mu -= self.params.mirostat_eta * (-math.log2(q) - self.params.mirostat_tau)
        return token


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
    changed = penalised_candidates(list(enumerate(row)), history, params, n)
    return [float32(logit) for _, logit in changed]


def penalised_candidates(
    candidates: Plain, history: list[int], params: SamplingParams, n: int
) -> Plain:
    size = n if params.repeat_last_n == -1 else params.repeat_last_n
    counts = Counter(history[-size:] if size else [])

    def changed(token_id: int, logit: float) -> float:
        count = counts[token_id]
        if not count:
            return logit
        logit = logit * params.repeat_penalty if logit <= 0 else logit / params.repeat_penalty
        return logit - (count * params.frequency_penalty + params.presence_penalty)

    return [(token_id, changed(token_id, logit)) for token_id, logit in candidates]


class Chain:
    """The chain in any order, with the random numbers of a seed."""

    def __init__(
        self,
        params: SamplingParams,
        context_length: int,
        *,
        banned: tuple[int, ...] = (),
        single: set[int] = frozenset(),
        tails: dict[int, list[tuple[int, ...]]] | None = None,
    ) -> None:
        self.params, self.context_length, self.banned = params, context_length, banned
        self.single, self.tails = single, tails or {}
        self.uniform = MersenneTwister(params.seed)
        # Every XTC has its own, also where it is listed twice.
        self.singles = [MersenneTwister(params.seed) for _ in params.order]
        self.place = 0

    def left(self, row: list[float], history: list[int]) -> Plain:
        """The candidates before the draw."""
        candidates = list(enumerate(biased(row, self.params, self.banned)))
        in_row = True  # penalties that come first are kept in single precision
        for place, name in enumerate(self.params.order):
            self.place, before = place, candidates
            candidates = getattr(self, "_" + name)(candidates, history)
            if name not in ("penalties", "dry"):
                in_row = in_row and candidates is before
            elif in_row:
                candidates = [(token_id, float32(logit)) for token_id, logit in candidates]
        return candidates

    def sample(self, row: list[float], history: list[int]) -> int:
        return dist(self.left(row, history), self.uniform.double())

    def _penalties(self, candidates: Plain, history: list[int]) -> Plain:
        return penalised_candidates(candidates, history, self.params, self.context_length)

    def _dry(self, candidates: Plain, history: list[int]) -> Plain:
        amounts = dry(history, self.params, self.context_length, self.single, self.tails)
        return [(token, logit - amounts.get(token, 0.0)) for token, logit in candidates]

    def _top_n_sigma(self, candidates: Plain, history: list[int]) -> Plain:
        return top_n_sigma(candidates, self.params.top_n_sigma)

    def _top_k(self, candidates: Plain, history: list[int]) -> Plain:
        return top_k(candidates, self.params.top_k)

    def _typ_p(self, candidates: Plain, history: list[int]) -> Plain:
        return typical(candidates, self.params.typical_p, self.params.min_keep)

    def _top_p(self, candidates: Plain, history: list[int]) -> Plain:
        return top_p(candidates, self.params.top_p, self.params.min_keep)

    def _min_p(self, candidates: Plain, history: list[int]) -> Plain:
        return min_p(candidates, self.params.min_p, self.params.min_keep)

    def _xtc(self, candidates: Plain, history: list[int]) -> Plain:
        params = self.params
        if params.xtc_probability <= 0 or params.xtc_threshold > 0.5 or len(candidates) < 2:
            return candidates
        u = self.singles[self.place].next() / 2**32
        return xtc(candidates, params.xtc_probability, params.xtc_threshold, params.min_keep, u)

    def _temperature(self, candidates: Plain, history: list[int]) -> Plain:
        params = self.params
        return heated(
            candidates, params.temperature, params.dynatemp_range, params.dynatemp_exponent
        )


def sample(
    row: list[float],
    history: list[int],
    params: SamplingParams,
    *,
    u: float,
    context_length: int,
    banned: tuple[int, ...] = (),
) -> int:
    """One token of the default chain."""
    return dist(Chain(params, context_length, banned=banned).left(row, history), u)


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
