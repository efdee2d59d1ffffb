"""What the routes of all dialects share: the engine, its settings, the loaded model's profile."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nitrolib.errors import ModelAlreadyLoaded

from .disconnect import Watcher

if TYPE_CHECKING:
    from nitrolib.backends.base import LoadOptions
    from nitrolib.config import Settings
    from nitrolib.engine import Engine
    from nitrolib.engine.request import ModelStatus, Overflow
    from nitrolib.prompt import PromptTemplate

__all__ = ["Profile", "Service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How the loaded model is talked to; the engine itself knows no dialect.

    stop: stop words of chats that give none.
    repeat_last_n: window of chats that give none; None is the dialect's default.
    context_policy: of chats that name none, see GenerationRequest.
    model_type: "llm"; anything else is an embedding model, which refuses chats.
    alias: name to show instead of the path.
    warnings: what the load asked for and is not as asked.
    """

    template: PromptTemplate
    stop: tuple[str, ...] = ()
    repeat_last_n: int | None = None
    context_policy: Overflow = "error"
    model_type: str = "llm"
    alias: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def chats(self) -> bool:
        return self.model_type == "llm"


@dataclass
class Service:
    """One server's state. `profile` is replaced whole, so a request reads it once and is safe."""

    engine: Engine
    settings: Settings
    owns_engine: bool
    profile: Profile
    watcher: Watcher = field(default_factory=Watcher)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def start(cls, engine: Engine | None, settings: Settings) -> Service:
        """With no *engine*: a new one, with the model of the settings loaded."""
        profile = Profile(template=settings.prompt_template())
        if engine is not None:
            return cls(engine=engine, settings=settings, owns_engine=False, profile=profile)
        from nitrolib.engine import Engine as NewEngine

        engine = NewEngine(max_queue=settings.max_queue)
        service = cls(engine=engine, settings=settings, owns_engine=True, profile=profile)
        try:
            service.load_first()
        except BaseException:
            engine.close()
            raise
        return service

    def load_first(self) -> None:
        """Load the model of the settings: the one asked for, the bundled one, or none."""
        if self.settings.no_model:
            return
        from nitrolib.cli.model import model_path

        path = model_path(self.settings)
        options = self.settings.load_options()
        self.engine.load(path, options=options, backend=self.settings.backend)

    def load(self, path: str, options: LoadOptions, profile: Profile) -> ModelStatus:
        """Load a model and talk to it as *profile* says. Raises as Engine.load does, and
        ModelAlreadyLoaded while another load is under way: loads do not pile up.

        The profile changes first: what still runs on a model that gives way is ended by the load
        anyway, and no chat may reach the new model in the old one's words.
        """
        if not self._loading.acquire(blocking=False):
            raise ModelAlreadyLoaded("a model is being loaded")
        try:
            before = self.profile
            loaded = self.engine.status().model
            if loaded is not None and not loaded.provisional:
                raise ModelAlreadyLoaded("a model is loaded already", path=loaded.path)
            self.profile = profile
            try:
                status = self.engine.load(path, options=options, backend=self.settings.backend)
            except BaseException:
                if self.engine.status().model is not None:  # the old model is still there
                    self.profile = before
                raise
            self.profile = replace(profile, warnings=(*profile.warnings, *status.notes))
            return status
        finally:
            self._loading.release()

    def close(self) -> None:
        """End the watching, and the engine where it is this service's own."""
        if self.owns_engine:
            self.engine.close()
        self.watcher.close()
