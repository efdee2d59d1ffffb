"""The Nitro dialect: one model that is loaded and unloaded, chat and embeddings at OpenAI's paths
under /inferences, and Nitro's own errors."""

from .routes import DIALECT

__all__ = ["DIALECT"]
