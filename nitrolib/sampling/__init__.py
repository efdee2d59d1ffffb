"""From a row of logits to a token: parameters, the chain of samplers, seeded draws. Pure numpy,
knows no model."""

from .params import DEFAULT_SAMPLERS, SamplingParams, clean_stops
from .sampler import Sampler
from .support import check_supported, check_vocabulary

__all__ = [
    "DEFAULT_SAMPLERS",
    "Sampler",
    "SamplingParams",
    "check_supported",
    "check_vocabulary",
    "clean_stops",
]
