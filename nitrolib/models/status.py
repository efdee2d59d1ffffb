"""DownloadStatus: a download as it is at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..errors import NitroError

__all__ = ["DownloadState", "DownloadStatus"]

DownloadState = Literal["queued", "downloading", "downloaded", "failed", "cancelled", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadStatus:
    """A download as it is now.

    state: "queued" and "downloading" are under way; "stopped" was ended by `close` and goes on
        when it is started again.
    file: the one that is being fetched. bytes: of all files that are here; total: of all files,
        None while unknown. rate: bytes a second over the last seconds.
    error: why it "failed"; its part is kept if the error is a DownloadError with `resumable` True.
    """

    id: str
    source_url: str
    state: DownloadState
    file: str = ""
    bytes: int = 0
    total: int | None = None
    rate: float = 0.0
    error: NitroError | None = None

    @property
    def active(self) -> bool:
        return self.state in ("queued", "downloading")

    @property
    def seconds_left(self) -> float | None:
        """At the rate of now; None where nothing tells."""
        if self.total is None or self.rate <= 0:
            return None
        return (self.total - self.bytes) / self.rate
