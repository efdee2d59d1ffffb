"""SamplingParams: how one answer is sampled and where it ends, validated once.

The fields, defaults and ranges are those of the CreateChatCompletionDto that the server must
accept. Dialects translate into this class; nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass

# Fields completed by the sampling module's owner: validation in __post_init__.


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Parameters of one generation; raises InvalidRequest for a value out of range."""

    temperature: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_penalty: float = 1.1
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    min_keep: int = 0
    samplers: tuple[str, ...] | None = None
    seed: int = -1
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    n_probs: int = 0
    post_sampling_probs: bool = False
    grammar: str | None = None
    json_schema: str | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n_indent: int = 0
    t_max_predict_ms: int = 0
