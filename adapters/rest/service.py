"""Service: what the routes of all dialects share: models, settings, storage."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nitrolib.errors import ModelNotFound, ModelNotLoaded, NitroError, StorageError
from nitrolib.models import ModelPool, Registry

from .disconnect import Watcher
from .downloading import open_downloads
from .lease import Lease
from .model_paths import ModelPaths
from .profile import Profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nitrolib.backends.base import LoadOptions
    from nitrolib.config import Settings
    from nitrolib.engine import Engine
    from nitrolib.models import Downloads, ModelEntry, Seat
    from nitrolib.models import Lease as PoolLease
    from nitrolib.store import Store

__all__ = ["Lease", "Profile", "Service", "service"]

log = logging.getLogger(__name__)


def service() -> Service:
    """The service of the application that answers the current request."""
    from flask import current_app

    found: Service = current_app.extensions["nitrolib"]
    return found


class Service:
    """One server's state. Every method may be called from any thread.

    pool: the loaded models. registry: the models in the folder of the settings.
    paths: which files clients may name. watcher: notices clients that go away.
    """

    def __init__(self, pool: ModelPool, settings: Settings, *, owns_pool: bool) -> None:
        self.pool = pool
        self.settings = settings
        self.registry = Registry(settings.models_folder)
        self.paths = ModelPaths(settings)
        self.watcher = Watcher()
        self._owns_pool = owns_pool
        self._opening = threading.Lock()
        self._store: Store | None = None
        self._downloads: Downloads | None = None

    @classmethod
    def open(cls, engine: Engine | None, settings: Settings) -> Service:
        """With no *engine*: engines of its own, and the model of the settings loaded."""
        if engine is not None:
            return cls(ModelPool.around(engine), settings, owns_pool=False)
        from nitrolib.engine import Engine as NewEngine

        pool = ModelPool(
            max_loaded=settings.max_models,
            idle_s=settings.model_idle_s,
            make_engine=lambda: NewEngine(max_queue=settings.max_queue),
        )
        made = cls(pool, settings, owns_pool=True)
        try:
            made._load_first()
            made._resume_downloads()
        except BaseException:
            made.close()
            raise
        return made

    def _load_first(self) -> None:
        """Load the model of the settings: the one asked for, the bundled one, or none."""
        if self.settings.no_model:
            return
        from nitrolib.cli.model import load_options, model_path, parameters, template

        settings = self.settings
        profile = Profile(
            template=template(settings), stop=_stops(parameters(settings).get("stop", ()))
        )
        self.load(model_path(settings), load_options(settings), profile)

    def _default_profile(self) -> Profile:
        """How a model is talked to that came without prompts of its own."""
        if self.settings.has_prompts:
            return Profile(template=self.settings.prompt_template())
        return Profile()

    # ---- using -----------------------------------------------------------------------------

    def use(self, name: str | None = None, *, start: bool = False) -> Lease:
        """A lease of the model *name*, or of the current one, which was loaded last.

        name: an id of the registry, or what a loaded model is called (id, alias, path).
        start: load a model that the registry knows and that is not loaded.

        Raises ModelNotFound for a name that nobody knows, ModelNotLoaded, and what loading raises.
        """
        if name is None:
            return self._leased(self.pool.lease())
        seat = self._called(name)
        if seat is not None:
            return self._leased(self.pool.lease(seat.key))
        entry = self.registry.find(name)
        if entry is None:
            raise ModelNotFound(name)
        if not start:
            raise ModelNotLoaded(f"model {entry.id!r} is not loaded")
        return self.start(entry)

    def select(self, name: str | None, *, strict: bool | None = None) -> tuple[Lease, bool]:
        """A lease of the model that a request names, and whether its name says which it is.

        A name that the registry knows is started; of one that nobody knows the current model is
        the answer, unless *strict* (the setting `strict_model` where None) raises ModelNotFound.
        "" and "_", which the dialect calls its models itself, are no names.
        """
        if name in (None, "", "_"):
            return self.use(), True
        try:
            return self.use(name, start=True), True
        except ModelNotFound:
            if self.settings.strict_model if strict is None else strict:
                raise
        return self.use(), False

    def called(self, name: str) -> Seat | None:
        """The loaded model with this id, alias or path."""
        return self._called(name)

    # ---- loading ---------------------------------------------------------------------------

    def start(self, entry: ModelEntry, overrides: Mapping[str, Any] | None = None) -> Lease:
        """Load a model of the registry as its manifest says, *overrides* (fields of LoadOptions)
        in its place, and make it the current one; idle models give way. One that is loaded like
        that stays as it is. Raises ModelNotFound where its file is absent, Conflict where all
        others are busy, and as Engine.load does."""
        entry.examine()
        base = self.settings.load_options(provisional=False)
        options = _replaced(entry.manifest.load_options(base), overrides or {})
        template = entry.manifest.template()
        profile = Profile(
            template=template or self._default_profile().template,
            stop=_stops(entry.manifest.parameters.get("stop", ())),
        )
        lease = self.pool.open(
            entry.id, str(entry.path), options, self.settings.backend, extra=profile
        )
        return self._leased(lease)

    def stop(self, name: str) -> bool:
        """Unload the model that is called *name*, busy or not; False where it is not loaded."""
        seat = self._called(name)
        return self.pool.unload(name if seat is None else seat.key)

    def load(self, path: str, options: LoadOptions, profile: Profile) -> Seat:
        """Load a model by its path, which `paths` has let pass, where there is room, and talk to it
        as *profile* says. Raises as Engine.load does, and ModelAlreadyLoaded while another is
        loaded or being loaded."""
        entry = self.registry.find(path)
        key = entry.id if entry is not None else profile.alias or Path(path).stem or path
        return self.pool.load(
            key,
            path,
            options,
            self.settings.backend,
            extra=profile,
            evict=False,
            exist_ok=False,
        )

    # ---- storage ---------------------------------------------------------------------------

    @property
    def downloads(self) -> Downloads:
        """Fetches models into the registry, as far as the settings allow."""
        with self._opening:
            if self._downloads is None:
                self._downloads = open_downloads(self.registry, self.settings)
            return self._downloads

    def _resume_downloads(self) -> None:
        """Go on with what an earlier server was stopped at; that must not keep this one away."""
        if self.settings.downloads and self.registry.root.is_dir():
            try:
                self.downloads.resume()
            except NitroError as error:
                log.warning("downloads are not resumed: %s", error)

    @property
    def store(self) -> Store:
        """Threads, messages and answers, opened when they are first wanted. Raises StorageError."""
        with self._opening:
            if self._store is None:
                from nitrolib.store import Store

                self._store = Store.open(self._database())
            return self._store

    def _database(self) -> str | Path:
        if self.settings.database_url is not None:
            return self.settings.database_url
        folder = self.settings.data_folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder} cannot be made: {error.strerror}") from error
        return folder / "nitro.db"

    def close(self) -> None:
        """End the watching, the downloads and the storage, and the models where they are this
        service's own."""
        if self._owns_pool:
            self.pool.close()
        self.watcher.close()
        with self._opening:
            if self._downloads is not None:
                self._downloads.close()
                self._downloads = None
            if self._store is not None:
                self._store.close()
                self._store = None

    # ---- inside ----------------------------------------------------------------------------

    def profile_of(self, seat: Seat) -> Profile:
        """How a loaded model is talked to; its template is not resolved."""
        extra = seat.extra  # None: a caller loaded it into an engine of its own
        return self._default_profile() if extra is None else cast("Profile", extra)

    def _leased(self, lease: PoolLease) -> Lease:
        return Lease(lease, self.profile_of(lease.seat), self.registry)

    def _called(self, name: str) -> Seat | None:
        for seat in self.pool.seats():
            if name in (seat.key, seat.path, self.profile_of(seat).alias):
                return seat
        return None


def _replaced(options: LoadOptions, overrides: Mapping[str, Any]) -> LoadOptions:
    from dataclasses import replace

    return replace(options, **overrides)


def _stops(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
