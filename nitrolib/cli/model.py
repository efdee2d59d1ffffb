"""From settings to a loaded model: what the commands that generate have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import OPTIONS
from ..errors import ModelFileError
from . import console

if TYPE_CHECKING:
    from ..config import Settings
    from ..engine import Engine

__all__ = ["model_path", "open_engine", "template"]


def model_path(settings: Settings) -> str:
    """Path of the model asked for, or of the bundled one. Raises ModelFileError when the package
    was installed without that."""
    if settings.model is not None:
        return settings.model
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

    options = settings.load_options(**{"warm_up": False, **changes})
    engine = Engine.open(model_path(settings), options=options, backend=settings.backend)
    model = engine.status().model
    if model is not None and _asked(settings):
        for note in model.notes:
            console.complain(f"note: {note}")
    return engine


def _asked(settings: Settings) -> bool:
    """Whether *settings* ask for anything that loading can come short of."""
    return bool(settings.ngl) or any(
        getattr(settings, option.name) != option.default
        for option in OPTIONS
        if option.name in ("ctx_len", "n_parallel")
    )


def template(settings: Settings) -> Any:
    """The prompt style asked for, or None for the engine's own choice for the model."""
    return settings.prompt_template() if settings.has_prompts else None
