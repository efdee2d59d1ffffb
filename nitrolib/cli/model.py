"""From settings to a loaded model: what the commands that generate have in common."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config import OPTIONS
from ..errors import ModelFileError
from . import console

if TYPE_CHECKING:
    from ..backends.base import LoadOptions
    from ..config import Settings
    from ..engine import Engine
    from ..models import ModelEntry

__all__ = ["find_entry", "load_options", "model_path", "open_engine", "parameters", "template"]

# Settings of loading that model.json may have as well: those given on purpose win.
_LOADING = ("ctx_len", "n_parallel", "cont_batching", "ngl", "threads")
# Parameters of model.json that are fields of SamplingParams.
_SAMPLING = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "stop")


def find_entry(settings: Settings) -> ModelEntry | None:
    """The model of the models folder that --model names; None for a path, or no name."""
    if settings.model is None or os.path.isfile(settings.model):
        return None
    from ..models import Registry

    return Registry(settings.models_folder).find(settings.model)


def model_path(settings: Settings) -> str:
    """Path of the model asked for, by path or by its id in the models folder, or of the bundled
    one. Raises ModelFileError for a model whose file is absent, and when the package was installed
    without the bundled one."""
    if settings.model is not None:
        entry = find_entry(settings)
        if entry is None:
            return settings.model
        if entry.path is None:
            raise ModelFileError(
                f"the file of model {entry.id!r} is not here; 'nitro pull {entry.id}' fetches it"
            )
        return str(entry.path)
    from .. import demo

    try:
        return str(demo.model_path())
    except FileNotFoundError as error:
        raise ModelFileError(f"{error}; name a GGUF file with --model") from error


def open_engine(settings: Settings, **changes: Any) -> Engine:
    """An engine with the model loaded; *changes* replace fields of LoadOptions. The model is
    answered on at once, so it is not warmed up unless *changes* say so. Whoever asked for GPU
    layers, a context or slots is told where loading came to something else."""
    from ..engine import Engine

    options = load_options(settings, **{"warm_up": False, **changes})
    engine = Engine.open(model_path(settings), options=options, backend=settings.backend)
    model = engine.status().model
    if model is not None and _asked(settings):
        for note in model.notes:
            console.complain(f"note: {note}")
    return engine


def template(settings: Settings) -> Any:
    """The prompt style asked for, else that of model.json, or None for the engine's own choice for
    the model."""
    if settings.has_prompts:
        return settings.prompt_template()
    entry = find_entry(settings)
    return None if entry is None else entry.manifest.template()


def parameters(settings: Settings) -> dict[str, Any]:
    """What model.json says of sampling, as fields of SamplingParams."""
    entry = find_entry(settings)
    if entry is None:
        return {}
    told = entry.manifest.parameters
    found = {name: told[name] for name in _SAMPLING if name in told}
    most = entry.manifest.max_tokens
    return found if most is None or most < 0 else {**found, "max_tokens": most}


def load_options(settings: Settings, **changes: Any) -> LoadOptions:
    """How the model of the settings is loaded: *changes*, then what was set on purpose, then what
    its model.json says, then defaults."""
    options = settings.load_options(**changes)
    entry = find_entry(settings)
    if entry is None:
        return options
    given = {name: getattr(options, name) for name in _LOADING if _is_given(settings, name)}
    given |= changes
    if "ngl" in given:
        given["gpu_fallback"] = options.gpu_fallback
    return replace(entry.manifest.load_options(options), **given)


def _is_given(settings: Settings, name: str) -> bool:
    (option,) = (option for option in OPTIONS if option.name == name)
    return bool(getattr(settings, name) != option.default)


def _asked(settings: Settings) -> bool:
    """Whether *settings* ask for anything that loading can come short of."""
    return bool(settings.ngl) or any(
        _is_given(settings, name) for name in ("ctx_len", "n_parallel")
    )
