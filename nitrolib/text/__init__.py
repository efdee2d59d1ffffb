"""From tokens to text that can be sent: whole characters, and nothing of a stop string."""

from .detokenizer import Detokenizer
from .stops import StopMatcher

__all__ = ["Detokenizer", "StopMatcher"]
