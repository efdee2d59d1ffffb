"""gunicorn's threaded worker, with a way to stop at once that cannot hang."""

from __future__ import annotations

from typing import Any

from gunicorn.workers.gthread import ThreadWorker

__all__ = ["Worker"]


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Stops on SIGQUIT (which is what Ctrl-C becomes) by leaving its loop, not inside the handler.

    gunicorn's own handler takes the lock of the thread pool. The main thread, which the handler
    interrupts, holds that lock while it hands a request to the pool; then the worker would wait for
    itself until its master kills it.
    """

    def handle_quit(self, sig: int, frame: Any) -> None:
        wake = getattr(self, "method_queue", None)
        if wake is None or not self.booted:  # an older gunicorn, or nothing runs yet
            super().handle_quit(sig, frame)
            return
        self.alive = False
        # What runs is not waited for: `worker_exit` ends it.
        self.cfg.set("graceful_timeout", 0)
        self.nr_conns = 0
        wake.defer(lambda: None)
