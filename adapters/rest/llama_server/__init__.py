"""The llama-server dialect: what llama.cpp's own server answers, from completions and infill to
slots and metrics."""

from .routes import DIALECT

__all__ = ["DIALECT"]
