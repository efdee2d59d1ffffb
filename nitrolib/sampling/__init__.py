"""From a row of logits to a token: parameters, the chain of samplers, seeded draws. Pure numpy,
knows no model."""

from .bias_forms import parse_logit_bias
from .breakers import Breakers, BreakerTable
from .dry import needs_breakers
from .legality import Constraint
from .names import parse_samplers
from .params import DEFAULT_SAMPLERS, SamplingParams, clean_stops
from .sampler import Sampler
from .support import check_supported, check_vocabulary
from .survivors import Survivors

__all__ = [
    "DEFAULT_SAMPLERS",
    "BreakerTable",
    "Breakers",
    "Constraint",
    "Sampler",
    "SamplingParams",
    "Survivors",
    "check_supported",
    "check_vocabulary",
    "clean_stops",
    "needs_breakers",
    "parse_logit_bias",
    "parse_samplers",
]
