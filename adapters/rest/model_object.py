"""The one object that tells of a model: OpenAI's, and both of Jan's model schemas at once.

Jan's older schema keeps numbers as texts inside `settings` and `parameters`, its newer one has them
typed at the top, and nothing collides.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nitrolib.models import Manifest, ModelEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nitrolib.models import Seat

    from .service import Service

__all__ = ["known_models", "loaded_entry", "model_object", "settings_of"]

# What a load that does not say gets: Nitro's own.
_SETTINGS = {"ctx_len": 2048, "ngl": 100, "embedding": True, "n_parallel": 1}
# What a chat that does not say gets: Jan's own.
_PARAMETERS = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "stream": False}
_MAX_TOKENS = 2048


def model_object(entry: ModelEntry, seat: Seat | None = None, *, state: str) -> dict[str, Any]:
    """The model of *entry*, whose *state* is in the words of the route that shows it; *seat* is
    where it is loaded."""
    manifest, facts, info = entry.manifest, entry.facts, entry.info
    settings, given = settings_of(entry, seat), manifest.parameters
    parameters = {name: given.get(name, value) for name, value in _PARAMETERS.items()}
    ctx_len = info.n_ctx_train if info is not None and info.n_ctx_train else settings["ctx_len"]
    max_tokens = min(manifest.max_tokens or _MAX_TOKENS, ctx_len)
    metadata: Mapping[str, Any] = manifest.metadata
    tags = metadata.get("tags")
    return {
        "id": entry.id,
        "object": "model",
        "type": "model",
        "name": entry.name,
        "version": manifest.version,
        "description": entry.description,
        "format": manifest.format,
        "source_url": entry.source_url,
        "state": state,
        "created": entry.created,
        "owned_by": manifest.owned_by,
        "settings": {name: _spelled(value) for name, value in settings.items()},
        "parameters": {
            name: _spelled(value)
            for name, value in {**parameters, "token_limit": max_tokens}.items()
        },
        "metadata": {
            "engine": "llamacpp",
            "quantization": "" if facts is None else facts.quantization,
            "size": "" if facts is None else facts.size_label,
        },
        "assets": list(entry.assets),
        "ctx_len": ctx_len,
        "prompt_template": _template(entry),
        "temperature": parameters["temperature"],
        "top_p": parameters["top_p"],
        "stream": parameters["stream"],
        "max_tokens": max_tokens,
        "stop": _words(given.get("stop", ())),
        "frequency_penalty": given.get("frequency_penalty", 0),
        "presence_penalty": given.get("presence_penalty", 0),
        "author": str(metadata.get("author") or ("" if facts is None else facts.author)),
        "tags": _words(tags if tags else () if facts is None else facts.tags),
        "size": entry.size_bytes,
        "cover": str(metadata.get("cover") or ""),
        "engine": manifest.engine,
    }


def settings_of(entry: ModelEntry, seat: Seat | None = None) -> dict[str, Any]:
    """How the model is loaded, or would be: `ctx_len`, `ngl`, `embedding`, `n_parallel`."""
    settings = {name: entry.manifest.settings.get(name, value) for name, value in _SETTINGS.items()}
    if seat is None:
        return settings
    options, model = seat.options, seat.engine.status().model
    return {
        "ctx_len": options.ctx_len,
        "ngl": settings["ngl"] if model is None else model.gpu_layers,
        "embedding": options.embedding,
        "n_parallel": options.n_parallel,
    }


def known_models(service: Service) -> list[tuple[ModelEntry, Seat | None]]:
    """All models that can be asked for, with their seats: the loaded ones, the current one first,
    then those whose files are there, by their ids. A model that was loaded by its path alone is
    among the loaded ones."""
    known: list[tuple[ModelEntry, Seat | None]] = [
        (loaded_entry(service, seat), seat) for seat in service.pool.seats()
    ]
    ids = {entry.id for entry, _ in known}
    others = [one for one in service.registry.entries() if one.present and one.id not in ids]
    return known + [(entry, None) for entry in others]


def loaded_entry(service: Service, seat: Seat) -> ModelEntry:
    """What the registry knows of a loaded model, else what its file tells."""
    found = service.registry.find(seat.key)
    if found is not None:
        return found
    from nitrolib.models.facts import FactsCache

    path = Path(seat.path).absolute()
    return ModelEntry(
        id=seat.key,
        folder=path.parent,
        files=(path,),
        path=path,
        manifest=Manifest(id=seat.key),
        in_place=True,
        _facts=FactsCache(),
    )


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(given: Any) -> list[str]:
    if isinstance(given, str):
        return [given]
    return [str(one) for one in given] if isinstance(given, (list, tuple)) else []


def _template(entry: ModelEntry) -> str:
    """The template that the manifest spells, else the one in the file."""
    spelled = entry.manifest.settings.get("prompt_template")
    if spelled:
        return str(spelled)
    info = entry.info
    return (info.chat_template or "") if info is not None else ""
