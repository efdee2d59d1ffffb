"""Ids of what the store keeps: made here, or given and checked."""

from __future__ import annotations

import re
import secrets
import string

from ..errors import InvalidRequest

__all__ = ["check_id", "is_id", "new_id"]

_LETTERS = string.ascii_letters + string.digits
_LENGTH = 24  # 142 bits: no two are the same
_FORM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}")


def new_id(prefix: str) -> str:
    """A new id, such as `thread_` and 24 letters and digits for the *prefix* "thread"."""
    return f"{prefix}_{''.join(secrets.choice(_LETTERS) for _ in range(_LENGTH))}"


def is_id(value: str) -> bool:
    """Whether *value* has the form of an id. No id is a path: none has a slash or starts with a
    dot."""
    return _FORM.fullmatch(value) is not None


def check_id(value: str, field: str = "id") -> str:
    """*value*, if it has the form of an id. Raises InvalidRequest naming *field*."""
    if not is_id(value):
        raise InvalidRequest(
            f"{field} must be an id, got {value[:100]!r}",
            field=field,
            value=value[:100],
            allowed="1 to 128 letters, digits, '_', '-', '.' and ':', not starting with '.', '-' "
            "or ':'",
        )
    return value
