"""nitrolib: an embeddable local-LLM engine over GGUF models.

Importing this package loads no native library and no web framework.
"""

from __future__ import annotations

from pathlib import Path

from ._version import __version__
from .errors import NitroError

__all__ = ["NitroError", "__version__"]

# In a checkout `adapters/` and `schemas/` stand beside this folder instead of inside it.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "setup.cfg").is_file() and (_checkout / "adapters").is_dir():
    __path__.append(str(_checkout))
del _checkout, Path
