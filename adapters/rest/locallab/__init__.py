"""The LocalLab dialect: generation, chat and batches at LocalLab's paths, its models and its system
routes."""

from .routes import DIALECT

__all__ = ["DIALECT"]
