"""Models: those that a folder holds (`Registry`), fetching them (`Downloads`), and those that are
loaded (`ModelPool`)."""

from __future__ import annotations

from .downloads import Downloads
from .entry import ModelEntry
from .facts import Facts
from .ids import check_id
from .manifest import Manifest, ModelFile
from .policy import ANY_HOST, HUB_HOSTS, FetchPolicy
from .pool import ModelPool, SeatState
from .registry import Registry
from .seat import Lease, Seat
from .status import DownloadState, DownloadStatus

__all__ = [
    "ANY_HOST",
    "HUB_HOSTS",
    "DownloadState",
    "DownloadStatus",
    "Downloads",
    "Facts",
    "FetchPolicy",
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
