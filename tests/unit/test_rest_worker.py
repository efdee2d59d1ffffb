"""The gunicorn worker: told to stop at once, it does, whatever its main thread was doing."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

gthread = pytest.importorskip("gunicorn.workers.gthread", exc_type=ImportError)


def test_quitting_does_not_wait_for_the_lock_that_the_interrupted_thread_holds() -> None:
    from gunicorn.config import Config

    from nitrolib.adapters.worker import Worker

    worker = Worker.__new__(Worker)
    worker.cfg = Config()
    worker.alive = worker.booted = True
    worker.nr_conns = 3
    worker.method_queue = gthread.PollableMethodQueue()
    worker.method_queue.init()
    worker.tpool = ThreadPoolExecutor(1)
    with worker.tpool._shutdown_lock:  # as inside submit()
        handler = threading.Thread(
            target=worker.handle_quit, args=(signal.SIGTERM, None), daemon=True
        )
        handler.start()
        handler.join(60)
        assert not handler.is_alive()
    assert (worker.alive, worker.nr_conns, worker.cfg.graceful_timeout) == (False, 0, 0)
    worker.tpool.shutdown()
    worker.method_queue.close()
