"""The REST dialects: one Flask blueprint a dialect, shared plumbing beside them."""

from .app import create_app

__all__ = ["create_app"]
