"""ChatSession: a conversation on an engine, which remembers the messages and the exact tokens."""

from __future__ import annotations

from .session import ChatSession
from .turn import Turn

__all__ = ["ChatSession", "Turn"]
