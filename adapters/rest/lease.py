"""Lease: a loaded model in use by one request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nitrolib.errors import ModelNotLoaded

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from nitrolib.engine import Engine
    from nitrolib.engine.request import ModelStatus
    from nitrolib.models import Lease as PoolLease
    from nitrolib.models import ModelEntry, Registry, Seat
    from nitrolib.prompt import ChatTemplate, PromptTemplate

    from .profile import Profile

__all__ = ["Lease"]


class Lease:
    """A loaded model in use by one request: a context manager, and `close` may be called twice.
    While it is held the model does not give way to another one.

    id: what the model is called: its id in the registry, else its alias, else the name of its file.
    profile: how it is talked to, its template resolved.
    """

    def __init__(self, lease: PoolLease, profile: Profile, registry: Registry) -> None:
        self._lease = lease
        self._registry = registry
        self.id = lease.seat.key
        try:
            self.profile = profile.resolved(lease.engine)
        except BaseException:
            lease.close()
            raise

    @property
    def engine(self) -> Engine:
        return self._lease.engine

    @property
    def template(self) -> PromptTemplate | ChatTemplate:
        """What makes prompts of conversations."""
        assert self.profile.template is not None  # resolved
        return self.profile.template

    @property
    def seat(self) -> Seat:
        return self._lease.seat

    @property
    def entry(self) -> ModelEntry | None:
        """What the registry knows of the model, if anything."""
        return self._registry.find(self.id)

    @property
    def status(self) -> ModelStatus:
        """The model now. Raises ModelNotLoaded where it was unloaded meanwhile."""
        found = self.engine.status().model
        if found is None:
            raise ModelNotLoaded
        return found

    def close(self) -> None:
        """Give the model back."""
        self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
