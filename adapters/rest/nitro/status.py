"""modelstatus of the Nitro dialect: settings of the load and the sampling defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nitrolib.validation import schema

from ..chat.params import sampling

if TYPE_CHECKING:
    from nitrolib.engine.request import ModelStatus

    from ..profile import Profile
    from ..service import Lease

__all__ = ["NOTHING", "answer", "warnings"]

NOTHING: dict[str, Any] = {"model_loaded": False, "model_data": {}}

_PROMPTS = ("pre_prompt", "system_prompt", "user_prompt", "ai_prompt")
_RANDOM_SEED = 4294967295  # how the dialect writes -1


def answer(lease: Lease, stream: bool) -> dict[str, Any]:
    """The answer about a loaded model; *stream* is what a chat that does not say gets."""
    profile, status = lease.profile, lease.engine.status()
    data = {
        "model_loaded": True,
        "model": profile.alias or lease.status.path,
        "stream": stream,
        **_sampling_defaults(profile),
        **_load_settings(lease.status, profile),
        "running": status.running,
        "waiting": status.waiting,
        "max_queue": status.max_queue,
    }
    return {"model_loaded": True, "model_data": data}


def warnings(model: ModelStatus | None, profile: Profile) -> list[str]:
    """What a load asked for and is not as asked."""
    notes = () if model is None else model.notes
    return list(dict.fromkeys((*profile.warnings, *notes)))


def _sampling_defaults(profile: Profile) -> dict[str, Any]:
    """What a chat without sampling fields gets."""
    defaults = schema("nitro", "ChatCompletionRequest").defaults
    params = sampling({}, defaults, profile)
    return {
        "frequency_penalty": params.frequency_penalty,
        "grammar": params.grammar or "",
        "ignore_eos": params.ignore_eos,
        "logit_bias": [],
        "min_p": params.min_p,
        "mirostat": params.mirostat,
        "mirostat_eta": params.mirostat_eta,
        "mirostat_tau": params.mirostat_tau,
        "n_keep": 0,
        "n_predict": -1 if params.max_tokens is None else params.max_tokens,
        "n_probs": params.n_probs,
        "penalize_nl": True,
        "penalty_prompt_tokens": [],
        "presence_penalty": params.presence_penalty,
        "repeat_last_n": params.repeat_last_n,
        "repeat_penalty": params.repeat_penalty,
        "seed": _RANDOM_SEED if params.seed == -1 else params.seed,
        "stop": list(params.stop),
        "temp": params.temperature,
        "temperature": params.temperature,
        "tfs_z": 1.0,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "typical_p": params.typical_p,
        "use_penalty_prompt_tokens": False,
    }


def _load_settings(model: ModelStatus, profile: Profile) -> dict[str, Any]:
    template = profile.template
    return {
        "backend": model.backend,
        "caching_enabled": model.caching,
        "chats_since_clean": model.chats_since_clean,
        "clean_cache_threshold": model.clean_cache_threshold,
        "cleanings": model.cleanings,
        "cont_batching": model.cont_batching,
        "embedding": model.embedding,
        "memory_bytes": model.memory_bytes,
        "model_type": profile.model_type,
        "n_ctx": model.n_ctx,
        "n_parallel": model.n_parallel,
        "ngl": model.gpu_layers,
        "provisional": model.provisional,
        "threads": model.threads,
        # "" where the template is the one in the model's file, which has no such parts.
        **{name: getattr(template, name, "") for name in _PROMPTS},
        "chat_template": getattr(template, "source", None),
        "slots": [
            {"slot": slot.slot, "state": slot.state, "cached_tokens": slot.cached_tokens}
            for slot in model.slots
        ],
        "warnings": warnings(model, profile),
    }
