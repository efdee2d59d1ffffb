"""loadmodel of the Nitro dialect: its fields become LoadOptions and a Profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import shorten

from ..profile import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nitrolib.backends.base import LoadOptions
    from nitrolib.prompt import PromptTemplate

__all__ = ["Load", "from_body"]

_PROMPTS = ("pre_prompt", "system_prompt", "user_prompt", "ai_prompt")

# Fields that ask for something this engine does not do, and the values that ask for nothing.
_REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "cache_type": lambda value: value == "f16",
    "grammar_file": lambda value: value == "",
    "grp_attn_n": lambda value: value == 1,
    "mmproj": lambda value: value == "",
}

# Fields that change no answer: not used here, and the client is told so.
_NOT_USED: Mapping[str, str] = {
    "flash_attn": "the backend chooses its attention",
    "llama_log_folder": "no engine log is written",
    "n_batch": "the engine chooses how a prompt is divided",
    "n_ubatch": "the engine chooses how a prompt is divided",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What a loadmodel request asks for."""

    path: str
    options: LoadOptions
    profile: Profile


def from_body(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> Load:
    """The request in *body*, already checked against the schema whose *defaults* are given."""
    for name, harmless in _REFUSED.items():
        if name in body and not harmless(body[name]):
            raise Unsupported(
                f"{name} {shorten(body[name])} is not supported", field=name, value=body[name]
            )
    values = {**defaults, **body}
    warnings = [f"{n} is not used: {why}" for n, why in _NOT_USED.items() if body.get(n)]
    values["cpu_threads"] = _threads(values.get("cpu_threads"), warnings)
    template = _template(body, warnings)
    profile = Profile(
        template=template,
        stop=tuple(body.get("stop", ())),
        repeat_last_n=body.get("repeat_last_n"),
        context_policy="shift" if body.get("ctx_shift") else "error",
        model_type=values["model_type"],
        alias=body.get("model_alias"),
        warnings=tuple(warnings),
    )
    return Load(_path(body), _options(values), profile)


def _path(body: Mapping[str, Any]) -> str:
    names = [name for name in ("llama_model_path", "model_path") if name in body]
    paths = {str(body[name]) for name in names}
    if len(paths) > 1:
        raise InvalidRequest(
            "llama_model_path and model_path name different files",
            field="model_path",
            value=body["model_path"],
            allowed="the same path, or one of the two",
        )
    return paths.pop()


def _threads(asked: int | None, warnings: list[str]) -> int | None:
    """Threads as asked for, but no more than there are cores: clients send the number of their
    examples, and native threads that outnumber the cores are many times slower."""
    from nitrolib.backends.threads import available_cores

    cores = available_cores()
    if asked is None or asked <= cores:
        return asked
    warnings.append(f"cpu_threads is {cores}, the cores there are, not {asked}")
    return cores


def _options(values: Mapping[str, Any]) -> LoadOptions:
    from nitrolib.backends.base import LoadOptions

    return LoadOptions(
        ctx_len=values["ctx_len"],
        n_parallel=values["n_parallel"],
        cont_batching=values["cont_batching"],
        ngl=values.get("ngl"),
        gpu_fallback=True,
        threads=values["cpu_threads"],
        embedding=values["embedding"],
        mmap=values["use_mmap"],
        mlock=values["mlock"],
        caching=values["caching_enabled"],
        clean_cache_threshold=values["clean_cache_threshold"],
        warm_up=values["model_type"] == "llm",
    )


def _template(body: Mapping[str, Any], warnings: list[str]) -> PromptTemplate:
    """The four prompts, given by name or inside prompt_template; names win."""
    from nitrolib.prompt import PromptTemplate

    given = {name: body[name] for name in _PROMPTS if name in body}
    text = body.get("prompt_template")
    if not text:
        return PromptTemplate(**given)
    prefixes = [name for name in given if name != "pre_prompt"]
    if prefixes:
        warnings.append(f"prompt_template is not used beside {', '.join(prefixes)}")
        return PromptTemplate(**given)
    return replace(PromptTemplate.from_prompt_template(text), **given)
