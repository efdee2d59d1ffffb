"""GGUF files: a bounded reader, what the model is (`ModelInfo`, `Vocabulary`), and `verify`, which
proves a file sound before native code sees it."""

from __future__ import annotations

from .ctransformers_rule import CTRANSFORMERS
from .llama_cpp_rule import LLAMA_CPP
from .model import ModelInfo
from .reader import GGUFFile, Metadata, StringArray, TensorInfo, open_gguf, read_gguf
from .rules import Candidate, KeyRule, Rule
from .source import FileIdentity
from .types import GGML_TYPES, GGMLType
from .verify import verify, verify_file
from .vocabulary import Vocabulary

__all__ = [
    "CTRANSFORMERS",
    "GGML_TYPES",
    "LLAMA_CPP",
    "Candidate",
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
    "read_gguf",
    "verify",
    "verify_file",
]
