"""The backend over llama-cpp-python: today's model architectures, one evaluation for all slots.

Importing it loads nothing native; `load` does.
"""

from __future__ import annotations

from .loading import load
from .plan import context_length, memory_plan

__all__ = ["context_length", "load", "memory_plan"]
