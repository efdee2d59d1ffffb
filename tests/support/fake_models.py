"""Engines that load nothing, for tests of what keeps several of them."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nitrolib.errors import ModelAlreadyLoaded, ModelNotLoaded

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class PoolEngine:
    """What a pool sees of an engine: it may hold one model, and requests that run."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.path: str | None = None
        self.options: Any = None
        self.running = 0
        self.closed = False
        self.unloads = 0

    def load(self, path: str, options: Any = None, backend: str = "auto") -> None:
        self.house.before_load(path)
        if self.closed:
            raise ModelNotLoaded("closed")
        if self.path is not None:
            raise ModelAlreadyLoaded("loaded", path=self.path)
        with self.house.lock:
            self.house.loaded.append(path)
            self.house.most = max(self.house.most, len(self.house.loaded))
        self.path, self.options = path, options

    def unload(self) -> bool:
        self.unloads += 1
        return self._drop()

    def close(self) -> None:
        self.closed = True
        self._drop()

    def status(self) -> SimpleNamespace:
        model = None
        if self.path is not None:
            model = SimpleNamespace(
                path=self.path, n_ctx=512, n_parallel=1, provisional=False, backend="fake"
            )
        return SimpleNamespace(model=model, loading=False, running=self.running, waiting=0)

    def _drop(self) -> bool:
        path, self.path = self.path, None
        if path is None:
            return False
        self.house.before_unload(path)
        with self.house.lock:
            self.house.loaded.remove(path)
        return True


class House:
    """All engines of a test. `before_load` and `before_unload` are called with the path, and may
    wait or raise; `loaded` is what is in memory now, `most` the most that ever was."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engines: list[PoolEngine] = []
        self.loaded: list[str] = []
        self.most = 0
        self.before_load: Callable[[str], object] = lambda _path: None
        self.before_unload: Callable[[str], object] = lambda _path: None

    def engine(self) -> Any:
        made = PoolEngine(self)
        self.engines.append(made)
        return made
