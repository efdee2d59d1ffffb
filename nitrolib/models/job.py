"""Job: the download of one model, all of its files, and what it is doing now."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from ..errors import DownloadError, ModelNotFound, NitroError, StorageError
from .client import Client
from .connection import Aborted, Guard
from .fetch import Fetch
from .hub import endpoint, token
from .part import Origin, Part, part_path, part_paths
from .status import DownloadStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .entry import ModelEntry
    from .manifest import ModelFile
    from .policy import FetchPolicy
    from .registry import Registry
    from .status import DownloadState

__all__ = ["Job", "Tools", "discard"]

_RATE_WINDOW_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """What every job of one `Downloads` works with."""

    registry: Registry
    policy: FetchPolicy
    free_bytes: Callable[[Path], int]


class Job:
    """One model on its way. `status` may be read and `end` called from any thread; `run` is the
    worker's.

    made: the model is known for this download alone, and forgotten when that fails for good.
    release: lets other processes fetch it; safe to call twice.
    """

    def __init__(
        self,
        entry: ModelEntry,
        files: tuple[ModelFile, ...],
        *,
        made: bool,
        release: Callable[[], None],
    ) -> None:
        self.entry = entry
        self.files = files
        self.done = threading.Event()
        self._made = made
        self._release = release
        self._lock = threading.Lock()
        self._ended: Literal["cancelled", "stopped"] | None = None
        self._wake = threading.Event()
        self._guard: Guard | None = None
        self._seen: deque[tuple[float, int]] = deque(maxlen=512)
        self._whole: dict[str, int | None] = {file.filename: file.size for file in files}
        self._status = DownloadStatus(
            id=entry.id, source_url=files[0].url, state="queued", total=self._total()
        )

    @property
    def status(self) -> DownloadStatus:
        with self._lock:
            status, seen = self._status, [*self._seen]
        return replace(status, rate=_rate(seen)) if status.state == "downloading" else status

    def end(self, state: Literal["cancelled", "stopped"]) -> None:
        """Let it end as soon as it can, which is at once but for a name that is being resolved."""
        with self._lock:
            self._ended = self._ended or state
            guard = self._guard
        self._wake.set()
        if guard is not None:
            guard.abort()

    def run(self, tools: Tools) -> None:
        """Fetch all files. What comes of it is in the status; raises nothing."""
        state: DownloadState = "downloaded"
        error: NitroError | None = None
        try:
            self._change(state="downloading")
            self._fetch_all(tools)
        except Aborted:
            state = self._ended or "stopped"
        except NitroError as failure:
            state, error = "failed", failure
        except Exception as failure:  # noqa: BLE001 - a worker must outlive whatever happens
            _log.exception("the download of %r failed", self.entry.id)
            state, error = "failed", StorageError(f"unexpected {type(failure).__name__}: {failure}")
        try:
            if state != "downloaded" and not self._resumable(state, error):
                if isinstance(error, DownloadError):
                    error.resumable = False
                self._clean_up(tools)
        except NitroError as failure:
            error = error or failure
        finally:
            self._release()
            self._change(state=state, error=error)
            self.done.set()

    def _fetch_all(self, tools: Tools) -> None:
        with self._lock:
            self._guard = guard = Guard(tools.policy, time.monotonic() + tools.policy.max_time_s)
            if self._ended:
                raise Aborted
        for index, file in enumerate(self.files):
            target = self.entry.folder / file.filename
            if target.is_file() and not target.is_symlink():
                self._progress(file.filename, target.stat().st_size, target.stat().st_size)
                continue
            with _client(tools.policy, guard, file.url) as client:
                self._fetch(tools, client, guard, target, index)

    def _fetch(self, tools: Tools, client: Client, guard: Guard, target: Path, index: int) -> None:
        file = self.files[index]
        origin = Origin(url=file.url, sha256=file.sha256, made=self._made)
        with Part(target, origin) as part:
            self._change(file=file.filename)
            self._progress(file.filename, part.length, part.origin.total)
            Fetch(
                part=part,
                client=client,
                guard=guard,
                policy=tools.policy,
                first=index == 0,
                size=file.size,
                progress=lambda done, total: self._progress(file.filename, done, total),
                free=tools.free_bytes,
                wait=self._wake.wait,
            ).run()

    def _resumable(self, state: DownloadState, error: NitroError | None) -> bool:
        """Whether what is here is of use later: after a stop, and after a failure of the network
        that came behind the first bytes."""
        if state == "failed" and not (isinstance(error, DownloadError) and error.resumable):
            return False
        folder = self.entry.folder
        return state != "cancelled" and any(_begun(folder / one.filename) for one in self.files)

    def _clean_up(self, tools: Tools) -> None:
        discard(self.entry.folder, self.files)
        if self._made:
            self._release()  # Windows moves no folder in which a file is open
            with contextlib.suppress(ModelNotFound):
                tools.registry.remove(self.entry.id)

    def _total(self) -> int | None:
        sizes = [*self._whole.values()]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def _progress(self, name: str, done: int, total: int | None) -> None:
        with self._lock:
            if total is not None:
                self._whole[name] = total
            names = [file.filename for file in self.files]
            before = sum(self._whole[one] or 0 for one in names[: names.index(name)])
            self._seen.append((time.monotonic(), before + done))
            self._status = replace(self._status, bytes=before + done, total=self._total())

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._status = replace(self._status, **changes)


def discard(folder: Path, files: tuple[ModelFile, ...]) -> None:
    """Remove the parts of these files, and the files."""
    for file in files:
        target = folder / file.filename
        for path in (target, *part_paths(target)):
            with contextlib.suppress(OSError):
                path.unlink()


def _begun(target: Path) -> bool:
    """Whether there are bytes to go on with."""
    try:
        return part_path(target).stat().st_size > 0 or target.is_file()
    except OSError:
        return target.is_file()


def _rate(seen: list[tuple[float, int]]) -> float:
    """Bytes a second over the last seconds."""
    now = time.monotonic()
    recent = [one for one in seen if now - one[0] <= _RATE_WINDOW_S]
    if len(recent) < 2 or now <= recent[0][0]:
        return 0.0
    return max(0.0, (recent[-1][1] - recent[0][1]) / (now - recent[0][0]))


@contextlib.contextmanager
def _client(policy: FetchPolicy, guard: Guard, url: str) -> Iterator[Client]:
    """A client that shows the user's token to the Hub, and to nobody else."""
    hub = urlsplit(endpoint(policy))
    theirs = urlsplit(url)[:2] == hub[:2]
    made = Client(policy, guard, token=token() if theirs else None, token_host=hub.netloc)
    try:
        yield made
    finally:
        made.close()
