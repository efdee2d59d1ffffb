"""The chat that every dialect shares: its request, its prompt, its answer, and the route."""

from .answer import AnswerStyle
from .route import ChatDialect, apply_template, respond, select, wants_stream

__all__ = ["AnswerStyle", "ChatDialect", "apply_template", "respond", "select", "wants_stream"]
