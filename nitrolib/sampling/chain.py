"""The chain: which samplers run between the raw logits and the draw, in which order, and how.

Penalties at the head of the chain change the few logits they concern in the row itself. Every other
sampler takes candidates and returns candidates: arrays as long as there are many, lists as soon as
there are few. A temperature at the end is left to the draw, which divides on the way. Samplers
whose parameters make them change nothing are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from .candidates import Candidates
from .few import MOST, Few
from .filters import min_p, min_p_few, top_k, top_k_few, top_p, top_p_few
from .rng import Uniform32
from .sigma import top_n_sigma, top_n_sigma_few, top_n_sigma_top_k
from .temperature import Heat, heated, heated_few
from .typical import typical, typical_few
from .xtc import Xtc

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .params import SamplingParams
    from .penalties import Penalty

Wide = Callable[[Candidates], Candidates]
PENALTIES = ("penalties", "dry")


class Step(NamedTuple):
    """One sampler: on many candidates, and on few, which it changes in place."""

    wide: Wide
    few: Callable[[Few], None]


class Plan(NamedTuple):
    """The samplers that change something, by name, in order.

    head: penalties, which come first and are for the row. tail: the others. heat: the temperature
    that comes last; neutral if none does.
    """

    head: tuple[str, ...]
    tail: tuple[str, ...]
    heat: Heat

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token after the head is always the answer."""
        return self.heat.is_greedy and set(self.tail) <= {"top_n_sigma", "top_k", "top_p", "min_p"}

    @property
    def is_usual(self) -> bool:
        """Whether it is top_k, top_p, min_p in this order, of which top_k is not left out, and a
        plain temperature above 0."""
        usual = tuple(name for name in ("top_k", "top_p", "min_p") if name in self.tail)
        plain = self.heat.spread <= 0 and self.heat.t > 0
        return plain and self.tail == usual and "top_k" in usual


def plan(params: SamplingParams, penalties: Collection[str] = ()) -> Plan:
    """What `params` ask for; *penalties* names those of "penalties" and "dry" that change
    anything."""
    heat = Heat(params.temperature, params.dynatemp_range, params.dynatemp_exponent)
    changes = {
        "penalties": "penalties" in penalties,
        "dry": "dry" in penalties,
        "top_n_sigma": params.top_n_sigma > 0,
        "top_k": params.top_k > 0,
        "typ_p": params.typical_p < 1,
        "top_p": params.top_p < 1,
        "min_p": params.min_p > 0,
        "xtc": params.xtc_probability > 0 and params.xtc_threshold <= 0.5,
        "temperature": not heat.is_neutral,
    }
    active = [name for name in params.order if changes[name]]
    at = next((i for i, name in enumerate(active) if name not in PENALTIES), len(active))
    head, tail = active[:at], active[at:]
    is_last = bool(tail) and tail[-1] == "temperature"
    return Plan(tuple(head), tuple(tail[:-1] if is_last else tail), heat if is_last else Heat())


def steps(
    tail: Sequence[str], params: SamplingParams, seed: int, penalties: Mapping[str, Penalty]
) -> tuple[Step, ...]:
    """The samplers of a plan's tail; *penalties* are those that change anything, by name."""
    keep = params.min_keep
    heat = Heat(params.temperature, params.dynatemp_range, params.dynatemp_exponent)
    made = {
        "top_n_sigma": _both(top_n_sigma, top_n_sigma_few, n=params.top_n_sigma),
        "top_k": _both(top_k, top_k_few, k=params.top_k),
        "typ_p": _both(typical, typical_few, p=params.typical_p, min_keep=keep),
        "top_p": _both(top_p, top_p_few, p=params.top_p, min_keep=keep),
        "min_p": _both(min_p, min_p_few, p=params.min_p, min_keep=keep),
        "temperature": _both(heated, heated_few, heat=heat),
    }
    made |= {name: Step(penalty.wide, penalty.few) for name, penalty in penalties.items()}
    chosen = [_xtc(params, seed) if name == "xtc" else made[name] for name in tail]
    for at in range(len(tail) - 1):
        together = _TOGETHER.get((tail[at], tail[at + 1]))
        if together is not None:
            chosen[at : at + 2] = together(params, chosen[at], chosen[at + 1])
    return tuple(chosen)


def run(steps: Sequence[Step], candidates: Candidates) -> Candidates | Few:
    """What the samplers leave; few as soon as they are."""
    for index, step in enumerate(steps):
        if candidates.logits.size <= MOST:
            few = Few.of(candidates)
            for late in steps[index:]:
                late.few(few)
            return few
        candidates = step.wide(candidates)
    return Few.of(candidates) if candidates.logits.size <= MOST else candidates


def _xtc(params: SamplingParams, seed: int) -> Step:
    """Each with a generator of its own, also where it is listed twice."""
    uniform = Uniform32(seed)
    xtc = Xtc(params.xtc_probability, params.xtc_threshold, params.min_keep, uniform)
    return Step(xtc.wide, xtc.few)


def _both(wide: Callable[..., Candidates], few: Callable[..., None], **fixed: object) -> Step:
    return Step(partial(wide, **fixed), partial(few, **fixed))


def _sigma_then_top_k(params: SamplingParams, sigma: Step, then: Step) -> list[Step]:
    """The k best are looked for first: they are few, and masking them costs nothing."""
    wide = partial(top_n_sigma_top_k, n=params.top_n_sigma, k=params.top_k)
    return [Step(wide, sigma.few), Step(_unchanged, then.few)]


def _top_p_then_min_p(params: SamplingParams, nucleus: Step, then: Step) -> list[Step]:
    """What min_p drops need not be looked at for the end of the nucleus."""
    if params.min_keep > 1:
        return [nucleus, then]
    return [nucleus._replace(wide=partial(top_p, p=params.top_p, floor=params.min_p)), then]


def _unchanged(candidates: Candidates) -> Candidates:
    return candidates


_TOGETHER: dict[tuple[str, str], Callable[[SamplingParams, Step, Step], list[Step]]] = {
    ("top_n_sigma", "top_k"): _sigma_then_top_k,
    ("top_p", "min_p"): _top_p_then_min_p,
}
