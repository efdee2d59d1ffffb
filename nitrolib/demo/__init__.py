"""The model in the box: a very small chat model for first steps, demonstrations and tests."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["model_path"]

_FILE = "nitro-demo.gguf"


def model_path() -> Path:
    """The path of the bundled GGUF file; see MODEL_CARD.md beside it for what it can do.

    Raises FileNotFoundError if the package was installed without it.
    """
    # The native loaders need a real file, so a package inside a zip archive cannot serve one.
    path = Path(str(resources.files(__name__).joinpath(_FILE)))
    if not path.is_file():
        raise FileNotFoundError(f"the demo model is not installed: {path}")
    return path
