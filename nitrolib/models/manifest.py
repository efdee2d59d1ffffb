"""Manifest: what a model.json says, read in every spelling it has had and written in the last."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from . import values
from .ids import check_file_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from ..backends.base import LoadOptions
    from ..prompt import PromptTemplate

__all__ = ["Manifest", "ModelFile"]

_PROMPTS = ("pre_prompt", "system_prompt", "user_prompt", "ai_prompt")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
# Both spellings of the two groups; the later one wins where a file has both.
_SETTINGS = ("engine_parameters", "settings")
_PARAMETERS = ("model_parameters", "parameters")
_READ = frozenset(
    {"id", "object", "type", "name", "version", "description", "format", "source_url", "sources"}
    | {"created", "owned_by", "metadata", "engine", "state", "assets", *_SETTINGS, *_PARAMETERS}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file of a model and where it comes from. `sha256` (64 hexadecimal digits) and `size` in
    bytes are None where nobody told."""

    filename: str
    url: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A model.json.

    name: "" when it has none. version: a text such as "1.0".
    source_url: where the model comes from; "" if unknown. sources: its files, where they are told.
    settings, parameters: how it is loaded and called, as typed values: int, float, bool, str, and a
        tuple for `stop`. Keys that nitrolib does not know are kept.
    metadata: free; other: keys of the file that nitrolib does not know, kept as they are.
    created: Unix seconds; 0 where the file does not tell.
    """

    id: str
    name: str = ""
    version: str = "1.0"
    description: str = ""
    format: str = "gguf"
    source_url: str = ""
    sources: tuple[ModelFile, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    created: int = 0
    owned_by: str = ""
    engine: str = "nitro"
    other: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @classmethod
    def new(cls, id: str, **given: Any) -> Self:  # noqa: A002 - the word of every dialect
        """A manifest from values as a client gives them, converted and checked as those of a file
        are; `created` is now unless it is given. Raises InvalidRequest."""
        given = {name: value for name, value in given.items() if value is not None}
        return cls.parse({"created": int(time.time()), **given}, id)

    @classmethod
    def parse(cls, data: Any, id: str) -> Self:  # noqa: A002
        """The manifest in *data*, a decoded model.json, for the model *id* (its folder's name,
        whatever the file says). Raises InvalidRequest naming the field."""
        if not isinstance(data, dict):
            raise InvalidRequest("it must be a JSON object", value=data, allowed="a JSON object")
        sources = _sources(data.get("sources"))
        url = values.text(data.get("source_url"), "source_url")
        if url in ("", "N/A"):  # Jan wrote N/A
            url = sources[0].url if sources else ""
        metadata = values.group(data.get("metadata"), "metadata", {})
        return cls(
            id=id,
            name=values.text(data.get("name"), "name"),
            version=_version(data.get("version")),
            description=values.text(data.get("description"), "description"),
            source_url=url,
            sources=sources,
            settings=MappingProxyType(_merged(data, _SETTINGS, values.SETTINGS)),
            parameters=MappingProxyType(_merged(data, _PARAMETERS, values.PARAMETERS)),
            metadata=MappingProxyType(metadata),
            created=values.seconds(data.get("created") or 0, "created"),
            owned_by=values.text(data.get("owned_by"), "owned_by"),
            engine=values.text(data.get("engine"), "engine") or "nitro",
            other=MappingProxyType({k: v for k, v in data.items() if k not in _READ}),
        )

    def as_json(self) -> dict[str, Any]:
        """The object to write, in the final form: typed values, seconds, texts."""
        document = {
            "id": self.id,
            "object": "model",
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "format": self.format,
            "source_url": self.source_url,
            "sources": [_file_json(file) for file in self.sources],
            "created": self.created,
            "owned_by": self.owned_by,
            "settings": _plain(self.settings),
            "parameters": _plain(self.parameters),
            "metadata": _plain(self.metadata),
            "engine": self.engine,
        }
        for name in ("name", "sources"):
            if not document[name]:
                del document[name]
        return {**document, **self.other}

    @property
    def model_file(self) -> str:
        """Name of the file to load, in the model's folder; "" where nothing is said. Raises
        InvalidRequest for a name that leads elsewhere."""
        name = str(self.settings.get("llama_model_path", ""))
        return check_file_name(name, "settings.llama_model_path") if name else ""

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of an answer; "token_limit" is its older name."""
        found = self.parameters.get("max_tokens", self.parameters.get("token_limit"))
        return None if found is None else int(found)

    def load_options(self, base: LoadOptions) -> LoadOptions:
        """*base* with what the settings say in its place. GPU layers are a wish here: fewer are
        reported in the status instead of refused, and threads beyond the cores are left out.
        Raises InvalidRequest."""
        from ..backends.threads import available_cores

        names = ("ctx_len", "n_parallel", "embedding", "cont_batching", "ngl")
        changes = {name: self.settings[name] for name in names if name in self.settings}
        if "ngl" in changes:
            changes["gpu_fallback"] = True
        if "cpu_threads" in self.settings:
            changes["threads"] = min(self.settings["cpu_threads"], available_cores())
        return replace(base, **changes)

    def template(self) -> PromptTemplate | None:
        """The prompt style that the settings spell, in four prompts or in one template; None where
        they spell none. Raises InvalidRequest for a template that cannot be split."""
        from ..prompt import PromptTemplate

        given = {name: self.settings[name] for name in _PROMPTS if name in self.settings}
        whole = self.settings.get("prompt_template")
        if not whole or given.keys() - {"pre_prompt"}:
            return PromptTemplate(**given) if given else None
        return replace(PromptTemplate.from_prompt_template(whole), **given)


def _merged(data: dict[str, Any], names: tuple[str, ...], kinds: Mapping[str, Any]) -> Any:
    merged: dict[str, Any] = {}
    for name in names:
        merged |= values.group(data.get(name), name, kinds)
    return merged


def _version(value: Any) -> str:
    """1 and "1" are "1.0", which is what the last form writes."""
    if value is None or value == "":
        return "1.0"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value}.0" if isinstance(value, int) else str(value)
    found = values.text(value, "version")
    return f"{found}.0" if found.isdecimal() else found


def _sources(value: Any) -> tuple[ModelFile, ...]:
    """`sources`: objects with filename and url; the oldest draft has plain URLs."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidRequest(
            "sources must be a list", field="sources", value=value, allowed="a list of objects"
        )
    return tuple(_source(one, f"sources[{index}]") for index, one in enumerate(value))


def _source(value: Any, where: str) -> ModelFile:
    if isinstance(value, str):
        value = {"url": value}
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"{where} must be an object", field=where, value=value, allowed="an object"
        )
    url = values.text(value.get("url"), f"{where}.url")
    name = values.text(value.get("filename"), f"{where}.filename")
    name = name or url.replace("\\", "/").split("?")[0].rsplit("/", 1)[-1]
    digest = values.text(value.get("sha256"), f"{where}.sha256").lower() or None
    if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidRequest(
            f"{where}.sha256 must be 64 hexadecimal digits",
            field=f"{where}.sha256",
            value=digest,
            allowed="64 hexadecimal digits",
        )
    size = value.get("size")
    return ModelFile(
        filename=check_file_name(name, f"{where}.filename"),
        url=url,
        sha256=digest,
        size=None if size is None else values.whole(size, f"{where}.size"),
    )


def _file_json(file: ModelFile) -> dict[str, Any]:
    told = {
        "filename": file.filename,
        "url": file.url,
        "sha256": file.sha256,
        "size": file.size,
    }
    return {name: value for name, value in told.items() if value is not None}


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in group.items()}
