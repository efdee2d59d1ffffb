"""What this version honours of SamplingParams: the rest is refused, never ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from .params import SamplingParams

# Field, the value at which it changes nothing, and when it is there. Fields that only tune a
# feature (dry_base, mirostat_tau, ...) say nothing while the feature itself is off.
_UNSUPPORTED: tuple[tuple[str, str, Callable[[SamplingParams], bool]], ...] = (
    ("dynatemp_range", "0", lambda p: p.dynatemp_range == 0),
    ("typical_p", "1", lambda p: p.typical_p == 1),
    ("top_n_sigma", "0 or less", lambda p: p.top_n_sigma <= 0),
    (
        "xtc_probability",
        "0, or xtc_threshold above 0.5",
        lambda p: p.xtc_probability == 0 or p.xtc_threshold > 0.5,
    ),
    ("dry_multiplier", "0", lambda p: p.dry_multiplier == 0 or p.dry_penalty_last_n == 0),
    ("mirostat", "0", lambda p: p.mirostat == 0),
    ("min_keep", "0", lambda p: p.min_keep == 0),
    ("samplers", "None", lambda p: p.samplers is None),
    ("post_sampling_probs", "False", lambda p: not p.post_sampling_probs),
    ("grammar", "None", lambda p: not p.grammar),
    ("json_schema", "None", lambda p: p.json_schema is None),
)


def check_supported(params: SamplingParams) -> None:
    """Raise Unsupported, naming field and value, for a parameter that asks for what this version
    does not do; one that is off, or at a value that changes nothing, passes."""
    for field, neutral, is_neutral in _UNSUPPORTED:
        if not is_neutral(params):
            value = getattr(params, field)
            raise Unsupported(
                f"{field} is not supported yet; only {neutral} is, got {value!r}",
                field=field,
                value=value,
                allowed=neutral,
            )


def check_vocabulary(params: SamplingParams, n_vocab: int) -> None:
    """Raise InvalidRequest if `logit_bias` names a token that the model's `n_vocab` tokens do not
    include."""
    for token_id, _ in params.logit_bias:
        if token_id >= n_vocab:
            raise InvalidRequest(
                f"logit_bias names token {token_id}, and the model's last token is {n_vocab - 1}",
                field="logit_bias",
                value=token_id,
                allowed=f"token ids from 0 to {n_vocab - 1}",
            )
