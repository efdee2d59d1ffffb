"""Where settings come from: a TOML file and the environment, each a layer over the one before."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .options import Option

__all__ = [
    "CONFIG_VARIABLE",
    "OTHER_VARIABLES",
    "merge",
    "read_file",
    "read_variables",
    "refuse_unknown",
]

CONFIG_VARIABLE = "NITRO_CONFIG"  # path of the TOML file
# Variables of ours that are no settings.
OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "NITRO_DEBUG"})


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win. A layer that names a model takes back `no_model` of those below it, and
    the other way round: the two are one choice."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if layer.get("model") is not None:
            merged.pop("no_model", None)
        if layer.get("no_model"):
            merged.pop("model", None)
        merged.update(layer)
    return merged


def read_variables(environ: Mapping[str, str], options: Iterable[Option]) -> dict[str, Any]:
    values = {}
    for option in options:
        text = environ.get(option.variable)
        if text is None or (not text and not option.empty):
            continue
        try:
            values[option.name] = option.parse(text)
        except InvalidRequest as error:
            raise _found_in(error, option.variable) from None
    return values


def read_file(path: Path, options: Mapping[str, Option]) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise _bad_file(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _bad_file(path, f"not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise _bad_file(path, str(error)) from error
    refuse_unknown(table, options, f"name in {path}")
    try:
        return {name: options[name].check(value) for name, value in table.items()}
    except InvalidRequest as error:
        raise _found_in(error, str(path)) from None


def _bad_file(path: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"the configuration file {path} cannot be read: {reason}",
        field="config",
        value=str(path),
        allowed="a readable TOML file",
    )


def refuse_unknown(names: Iterable[str], options: Mapping[str, Option], what: str) -> None:
    for name in names:
        if name not in options:
            allowed = ", ".join(options)
            raise InvalidRequest(
                f"unknown {what}: {name!r}; the settings are {allowed}",
                field=name,
                value=name,
                allowed=allowed,
            )


def _found_in(error: InvalidRequest, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"{error.message} (in {where})",
        field=error.field,
        value=error.value,
        allowed=error.allowed,
    )
