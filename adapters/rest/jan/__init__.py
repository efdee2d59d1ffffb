"""The Jan dialect: models, threads, messages, assistants and runs, and chat as Jan's clients know
it."""

from .routes import DIALECT

__all__ = ["DIALECT"]
