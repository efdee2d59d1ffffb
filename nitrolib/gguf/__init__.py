"""GGUF files: a bounded reader, what the model is (`ModelInfo`, `Vocabulary`), and `verify`, which
proves a file sound before native code sees it."""

from __future__ import annotations

from .model import ModelInfo
from .reader import GGUFFile, Metadata, StringArray, TensorInfo, open_gguf
from .rules import CTRANSFORMERS, KeyRule, Rule
from .source import FileIdentity
from .types import GGML_TYPES, GGMLType
from .verify import verify, verify_file
from .vocabulary import Vocabulary

__all__ = [
    "CTRANSFORMERS",
    "GGML_TYPES",
    "FileIdentity",
    "GGMLType",
    "GGUFFile",
    "KeyRule",
    "Metadata",
    "ModelInfo",
    "Rule",
    "StringArray",
    "TensorInfo",
    "Vocabulary",
    "open_gguf",
    "verify",
    "verify_file",
]
