"""Where this user's data lives, on every system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["data_folder"]


def data_folder() -> Path:
    """The folder for what nitrolib keeps for this user, as the system wants it; nothing is made."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "nitrolib"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "nitrolib"
    base = os.environ.get("XDG_DATA_HOME", "")
    # The specification tells to ignore relative ones.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "nitrolib"
