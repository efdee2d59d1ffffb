"""Models: those that a folder holds (`Registry`), fetching them, and those that are loaded
(`ModelPool`)."""

from __future__ import annotations

from .entry import ModelEntry
from .facts import Facts
from .ids import check_id
from .manifest import Manifest, ModelFile
from .pool import ModelPool, SeatState
from .registry import Registry
from .seat import Lease, Seat

__all__ = [
    "Facts",
    "Lease",
    "Manifest",
    "ModelEntry",
    "ModelFile",
    "ModelPool",
    "Registry",
    "Seat",
    "SeatState",
    "check_id",
]
