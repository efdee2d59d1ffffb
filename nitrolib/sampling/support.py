"""What this version honours of SamplingParams: the rest is refused, never ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidRequest, Unsupported
from .dry import needs_breakers
from .params import DEFAULT_SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .params import SamplingParams

# Field, the values that are honoured without more, when it has one, and what the sampler must be
# given to honour the others.
_NEEDS: tuple[tuple[str, str, Callable[[SamplingParams], bool], str], ...] = (
    (
        "samplers",
        f"None or names among {', '.join(DEFAULT_SAMPLERS)}",
        lambda p: set(p.order) <= set(DEFAULT_SAMPLERS),
        "",
    ),
    ("dry_multiplier", "0", lambda p: not needs_breakers(p), "breakers"),
    ("post_sampling_probs", "False", lambda p: not p.post_sampling_probs, "keep_survivors"),
    ("grammar", "None", lambda p: not p.grammar, "constraint"),
    ("json_schema", "None", lambda p: p.json_schema is None, "constraint"),
)


def check_supported(params: SamplingParams, given: Collection[str] = ()) -> None:
    """Raise Unsupported, naming field and value, for a parameter that asks for what this version
    does not do; one that is off, or at a value that changes nothing, passes.

    *given* names what the sampler has for the parameters that need more than logits: "breakers"
    (DRY), "constraint" (grammar, json_schema), "keep_survivors" (post_sampling_probs).
    """
    for field, neutral, is_neutral, needed in _NEEDS:
        if needed not in given and not is_neutral(params):
            value = getattr(params, field)
            raise Unsupported(
                f"{field} is not supported here; only {neutral} is, got {value!r}",
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
