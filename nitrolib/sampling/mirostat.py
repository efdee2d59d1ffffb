"""Mirostat 1 and 2 (arXiv:2007.14966): keep the surprise of the answer near a target.

Either replaces the whole chain between the logit bias and the draw: the plain temperature divides
the logits, then this module chooses.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from .filters import rounded_up, top_k
from .partial_sort import mass
from .select import dist, probability
from .temperature import temperature

if TYPE_CHECKING:
    from .candidates import Candidates
    from .params import SamplingParams
    from .rng import Uniform

_ESTIMATED = 100  # tokens that version 1 estimates the exponent from


class Mirostat:
    """The state of one generation: *mu*, the surprise in bits up to which tokens are kept (version
    2) or which the kept ones have on average (version 1). It starts at twice the target."""

    def __init__(self, params: SamplingParams, n_vocab: int, uniform: Uniform) -> None:
        self.mu = 2.0 * params.mirostat_tau
        self._tau = params.mirostat_tau
        self._eta = params.mirostat_eta
        self._temperature = params.temperature
        self._keep = self._probable if params.mirostat == 2 else self._largest
        self._n_vocab = n_vocab
        self._uniform = uniform

    def choose(self, candidates: Candidates) -> tuple[int, Candidates]:
        """The token, and the candidates it was drawn from; `mu` moves by what it surprised.

        The largest logit must be finite. A lone candidate takes no random number.
        """
        kept = self._keep(temperature(candidates, self._temperature))
        if kept.logits.size == 1:
            token, surprise = kept.id_at(0), 0.0
        else:
            token = dist(kept, self._uniform())
            surprise = -math.log2(probability(kept, token))
        self.mu -= self._eta * (surprise - self._tau)
        return token, kept

    def _probable(self, candidates: Candidates) -> Candidates:
        """Version 2: tokens of at most `mu` bits, at least the best."""
        logits = candidates.logits
        top = float(logits.max())
        cut = top + math.log(mass(logits, top)) - self.mu * math.log(2)
        if cut >= top:
            return top_k(candidates, 1)
        return candidates.keep((logits >= rounded_up(cut, logits)).nonzero()[0], ranked=True)

    def _largest(self, candidates: Candidates) -> Candidates:
        """Version 1: the k most likely tokens of a Zipf's law with the exponent estimated from the
        best hundred."""
        best = top_k(candidates, _ESTIMATED).in_order().logits.tolist()
        return top_k(candidates, zipf_count(best[:_ESTIMATED], self.mu, self._n_vocab))


def zipf_count(logits: list[float], mu: float, n_vocab: int) -> int:
    """How many tokens of a vocabulary have *mu* bits of surprise on average, 1 to *n_vocab*, if
    probabilities follow rank ** -s, with s fitted to the descending *logits*.

    k = (e * 2**mu / (1 - n_vocab**-e)) ** (1/s) with e = s - 1, or (2**mu / ln n_vocab) at e = 0.
    """
    ratios = [math.log((rank + 1) / rank) for rank in range(1, len(logits))]
    drops = [higher - lower for higher, lower in pairwise(logits)]
    if not ratios or not all(map(math.isfinite, drops)):
        return 1  # the next token has no probability at all: s is infinite
    # Not fsum, which raises where a tiny temperature made the drops huge.
    s = sum([t * b for t, b in zip(ratios, drops, strict=True)]) / sum([t * t for t in ratios])
    if not math.isfinite(s):
        return 1
    e, bits = s - 1, mu * math.log(2)
    if abs(e) * math.log(n_vocab) < 1e-9:
        log_k = bits - math.log(math.log(n_vocab))
    else:
        log_k = bits + math.log(e / -math.expm1(-e * math.log(n_vocab)))
    if s > 0 and log_k / s < math.log(n_vocab):
        return max(1, int(math.exp(log_k / s)))
    return n_vocab if log_k > 0 else 1
