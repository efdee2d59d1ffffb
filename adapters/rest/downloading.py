"""The downloads of a server: from where, and whether at all, as its settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from nitrolib.errors import Forbidden
from nitrolib.models import HUB_HOSTS, Downloads, FetchPolicy

if TYPE_CHECKING:
    from nitrolib.config import Settings
    from nitrolib.models import Registry

__all__ = ["open_downloads"]


def open_downloads(registry: Registry, settings: Settings) -> Downloads:
    """Downloads into *registry*; where the settings switch them off, `start` raises Forbidden."""
    policy = FetchPolicy(
        hosts=(*HUB_HOSTS, *settings.download_hosts),
        allow_private=settings.download_private,
        backend=settings.backend,
    )
    return (Downloads if settings.downloads else _NoDownloads)(registry, policy)


class _NoDownloads(Downloads):
    """Knows of downloads that were stopped, and begins none."""

    def start(self, *_source: Any, **_options: Any) -> NoReturn:
        raise Forbidden("models are not downloaded by this server")
