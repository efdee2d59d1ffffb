"""The OpenAI dialect: chat, text completions, the Responses API, embeddings and models."""

from .routes import DIALECT, completion, embeddings

__all__ = ["DIALECT", "completion", "embeddings"]
