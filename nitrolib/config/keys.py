"""API keys: who may use the server, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ApiKey", "check_distinct", "parse_keys", "read_keys"]

# A key that has a colon itself is given with a name in front.
_NAMED = re.compile(r"([A-Za-z0-9._-]{1,64}):(.*)")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key and the name under which its use is logged."""

    name: str
    key: str = field(repr=False)


def parse_keys(lines: Iterable[str], where: str) -> tuple[ApiKey, ...]:
    """The keys in *lines*, each `key` or `name:key`; one without a name is called by its place.

    Raises InvalidRequest, which tells no key, for an empty key, and for a name or key given twice.
    """
    keys: list[ApiKey] = []
    for place, line in enumerate(lines, 1):
        named = _NAMED.fullmatch(line)
        name, key = named.groups() if named else (f"key-{place}", line)
        if not key.strip() or key != key.strip():
            raise _bad(where, f"entry {place} has no key, or spaces around it")
        keys.append(ApiKey(name, key))
    return check_distinct(keys, where)


def check_distinct(keys: Iterable[ApiKey], where: str) -> tuple[ApiKey, ...]:
    """*keys*, once no name and no key is there twice: the log must tell whose it was."""
    names: set[str] = set()
    texts: set[str] = set()
    keys = tuple(keys)
    for key in keys:
        if key.name in names:
            raise _bad(where, f"the name {key.name!r} stands in it twice")
        if key.key in texts:
            raise _bad(where, f"{key.name!r} repeats a key")
        names.add(key.name)
        texts.add(key.key)
    return keys


def read_keys(path: str) -> tuple[ApiKey, ...]:
    """The keys of a file, one a line; empty lines and those that begin with # are left out.

    Raises InvalidRequest as `parse_keys` does, and for a file that cannot be read or has none: a
    server that was meant to be locked must not stand open.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _bad(path, f"not UTF-8 at byte {error.start}") from error
    lines = (line.strip() for line in text.splitlines())
    keys = parse_keys([line for line in lines if line and not line.startswith("#")], path)
    if not keys:
        raise _bad(path, "it has no key")
    return keys


def _bad(where: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"the API keys of {where} cannot be used: {reason}",
        field="api_key_file" if where != "api_key" else "api_key",
        allowed="key or name:key, each once",
    )
