"""Downloads: fetching models into a registry in the background, a few at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from ..errors import (
    BackendUnavailable,
    Conflict,
    DownloadError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    StorageError,
)
from .entry import ModelEntry
from .ids import check_id, file_name, id_from_name
from .manifest import ModelFile
from .part import resumable_parts
from .policy import FetchPolicy
from .source import UrlSource, parse_source
from .status import DownloadStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from .job import Job
    from .registry import Registry

__all__ = ["Downloads"]

_KEPT = 256  # downloads that ended, whose status can still be asked for
_LOCK = ".nitro-download.lock"


class Downloads:
    """Fetches models into *registry*. Every method may be called from any thread.

    A file grows as `<name>.part` in the model's folder and gets its name when it is whole, checked
    and sound. When a download is stopped, or the network fails for too long, the part stays, and
    starting it again goes on with it, in another process too; cancelled ones and those that fail
    for another reason leave nothing, nor a model that was known for the download alone.

    max_parallel: downloads that run at a time; further ones wait.
    free_bytes: tells the room on the disk of a folder; None asks the system.
    """

    def __init__(
        self,
        registry: Registry,
        policy: FetchPolicy | None = None,
        *,
        max_parallel: int = 2,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        if isinstance(max_parallel, bool) or not isinstance(max_parallel, int) or max_parallel < 1:
            raise InvalidRequest(
                f"max_parallel must be a whole number of at least 1, got {max_parallel!r}",
                field="max_parallel",
                value=max_parallel,
                allowed="a whole number, 1 or more",
            )
        self.registry = registry
        self.policy = FetchPolicy() if policy is None else policy
        self.max_parallel = max_parallel
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: deque[Job] = deque()
        self._workers: set[threading.Thread] = set()
        self._closed = False

    def start(
        self,
        source: str | ModelEntry,
        *,
        id: str | None = None,  # noqa: A002 - the word of every dialect
        sha256: str | None = None,
        **manifest: Any,
    ) -> DownloadStatus:
        """Begin to fetch a model, or go on where it was stopped.

        source: what `parse_source` takes, or a model of the registry whose file is absent. A
            repository of the Hub is asked here and now; everything else happens in the background.
        id: of the model; None makes one from the name of the file.
        sha256: of a model of one file, in hexadecimal digits. manifest: as for `Registry.add`.

        A model that is on its way or there is left as it is. Raises InvalidRequest, DownloadError
        (reason "source" for a host that is not allowed), Conflict where the id is another model's
        or another process fetches it, BackendUnavailable without the extra `models`, StorageError.
        """
        _check_installed()
        if isinstance(source, ModelEntry):
            return self._start(source, self._files_of(source), made=False)
        files = self._files(source, sha256)
        name = id_from_name(files[0].filename) if id is None else check_id(id)
        manifest["sources"] = [_as_source(file) for file in files]
        while True:
            made = not self._knows(name)
            entry = self.registry.add(name, source_url=files[0].url, **manifest)
            try:
                return self._start(entry, files, made=made)
            except ModelNotFound:
                continue  # an earlier download of it failed just now, and took the model away
            except BaseException:
                if made:
                    self.registry.remove(name)
                raise

    def resume(self) -> tuple[DownloadStatus, ...]:
        """Go on with every download that this folder was left with. Those that another process is
        at are left to it, and those that may not be fetched (any more) stay as they are."""
        started = []
        for entry in self.registry.entries():
            if not entry.present and resumable_parts(entry.folder):
                with contextlib.suppress(Conflict, NotFound, InvalidRequest, DownloadError):
                    started.append(self.start(entry))
        return tuple(started)

    def status(self, id: str) -> DownloadStatus | None:  # noqa: A002
        """What became of a download; None for one that this object knows nothing of."""
        with self._lock:
            job = self._jobs.get(id)
        return None if job is None else job.status

    def statuses(self) -> tuple[DownloadStatus, ...]:
        """All downloads that are known here, the first one first."""
        with self._lock:
            jobs = [*self._jobs.values()]
        return tuple(job.status for job in jobs)

    def cancel(self, id: str) -> bool:  # noqa: A002
        """End a download and remove what there is of it, also of one that was stopped. False where
        there is nothing to end."""
        with self._lock:
            job = self._jobs.get(id)
        if job is not None and not job.done.is_set():
            job.end("cancelled")
            self._drop_queued(job)
            job.done.wait()
            return job.status.state == "cancelled"
        return self._discard_stopped(id)

    def wait(self, id: str, timeout: float | None = None) -> DownloadStatus:  # noqa: A002
        """Wait until a download ends, or for `timeout` seconds. Raises NotFound for one that is not
        known here."""
        with self._lock:
            job = self._jobs.get(id)
        if job is None:
            raise NotFound("download", id)
        job.done.wait(timeout)
        return job.status

    def close(self) -> None:
        """Stop all downloads; their parts stay. Safe to call twice."""
        with self._lock:
            self._closed = True
            jobs, workers = [*self._jobs.values()], [*self._workers]
        for job in jobs:
            job.end("stopped")
            self._drop_queued(job)
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- inside ----------------------------------------------------------------------------

    def _knows(self, id: str) -> bool:  # noqa: A002
        try:
            self.registry.get(id)
        except ModelNotFound:
            return False
        return True

    def _files(self, source: str, sha256: str | None) -> tuple[ModelFile, ...]:
        """The files that a source means."""
        from . import hub

        parsed = parse_source(source, hub.endpoint(self.policy))
        if isinstance(parsed, UrlSource):
            self.policy.check_url(parsed.url)
            files = tuple(
                ModelFile(filename=file_name(part.filename), url=part.url)
                for part in parsed.parts()
            )
        else:
            files = hub.resolve(parsed, self.policy)
        return files if sha256 is None else (_with_sum(files, sha256),)

    def _files_of(self, entry: ModelEntry) -> tuple[ModelFile, ...]:
        """The files that a model of the registry names, or those that its origin means."""
        sources = entry.manifest.sources
        if sources and all(file.url.startswith(("http://", "https://")) for file in sources):
            for file in sources:
                self.policy.check_url(file.url)
            return sources
        url = entry.manifest.source_url
        if not url.startswith(("http://", "https://", "hf://")):
            raise InvalidRequest(
                f"model {entry.id!r} has no address that it could be fetched from",
                field="source_url",
                value=url,
                allowed="an http or https URL",
            )
        files = self._files(url, None)
        self.registry.update(entry.id, sources=[_as_source(file) for file in files])
        return files

    def _start(
        self, entry: ModelEntry, files: tuple[ModelFile, ...], *, made: bool
    ) -> DownloadStatus:
        from .job import Job

        with self._lock:
            if self._closed:
                raise Conflict("the downloads are closed")
            job = self._jobs.get(entry.id)
            if job is not None and not job.done.is_set():
                return job.status
            if entry.present:
                return DownloadStatus(
                    id=entry.id,
                    source_url=entry.source_url,
                    state="downloaded",
                    bytes=entry.size_bytes,
                    total=entry.size_bytes,
                )
            before = resumable_parts(entry.folder).values()
            made = made or any(origin.made for origin in before)
            release = _locked(entry.folder)
            if not self._knows(entry.id):
                release()
                with contextlib.suppress(OSError):
                    entry.folder.rmdir()  # which the lock may have made again
                raise ModelNotFound(entry.id)
            job = Job(entry, files, made=made, release=release)
            self._jobs.pop(entry.id, None)
            self._jobs[entry.id] = job
            self._forget_old()
            self._queue.append(job)
            if len(self._workers) < self.max_parallel:
                worker = threading.Thread(target=self._work, name="nitro-download", daemon=True)
                self._workers.add(worker)
                worker.start()
            return job.status

    def _work(self) -> None:
        """A worker: runs jobs until there are none."""
        from .fetch import free_bytes
        from .job import Tools

        tools = Tools(self.registry, self.policy, self._free_bytes or free_bytes)
        while True:
            with self._lock:
                if not self._queue:
                    self._workers.discard(threading.current_thread())
                    return
                job = self._queue.popleft()
            job.run(tools)

    def _drop_queued(self, job: Job) -> None:
        """A job that ended while it waited need not wait for its turn to say so."""
        with self._lock:
            if job not in self._queue:
                return
            self._queue.remove(job)
        from .fetch import free_bytes
        from .job import Tools

        job.run(Tools(self.registry, self.policy, self._free_bytes or free_bytes))

    def _forget_old(self) -> None:
        over = len(self._jobs) - _KEPT
        for id in [id for id, job in self._jobs.items() if job.done.is_set()][: max(0, over)]:  # noqa: A001
            del self._jobs[id]

    def _discard_stopped(self, id: str) -> bool:  # noqa: A002
        from .job import discard

        try:
            entry = self.registry.get(id)
        except ModelNotFound:
            return False
        parts = resumable_parts(entry.folder)
        if not parts:
            return False
        release = _locked(entry.folder)
        try:
            names = [*parts, *(file.filename for file in entry.manifest.sources)]
            discard(entry.folder, tuple(ModelFile(filename=name, url="") for name in names))
            if any(origin.made for origin in parts.values()):
                self.registry.remove(id)
        finally:
            release()
        return True


def _locked(folder: Path) -> Callable[[], None]:
    """Take the lock of a model's folder against other processes; returns what gives it back.
    Raises Conflict while another one has it."""
    import filelock

    path = folder / _LOCK
    lock = filelock.FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise Conflict(f"another process is fetching into {folder.name!r}") from None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}", errno=error.errno) from error

    def release() -> None:
        """Safe to call twice."""
        if not lock.is_locked:
            return
        if os.name == "nt":  # which removes no open file
            lock.release()
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()

    return release


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("httpx", "filelock", "huggingface_hub") if find_spec(name) is None]
    if missing:
        raise BackendUnavailable(
            f"downloads need {' and '.join(missing)}: pip install 'nitrolib[models]'",
            hint="pip install 'nitrolib[models]'",
        )


def _with_sum(files: tuple[ModelFile, ...], sha256: str) -> ModelFile:
    """The only file, with the sum it must have."""
    from dataclasses import replace

    digest = sha256.strip().lower()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise InvalidRequest(
            f"sha256 must be 64 hexadecimal digits, got {sha256!r}",
            field="sha256",
            value=sha256,
            allowed="64 hexadecimal digits",
        )
    if len(files) > 1:
        raise InvalidRequest(
            f"one sha256 cannot be that of {len(files)} files",
            field="sha256",
            value=sha256,
            allowed="nothing for a model in several files",
        )
    return replace(files[0], sha256=digest)


def _as_source(file: ModelFile) -> dict[str, Any]:
    return {
        "filename": file.filename,
        "url": file.url,
        "sha256": file.sha256,
        "size": file.size,
    }
