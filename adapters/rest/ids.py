"""Identifiers of answers."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.digits + string.ascii_letters


def random_id(length: int = 20) -> str:
    """*length* random characters out of 0-9, a-z, A-Z."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
