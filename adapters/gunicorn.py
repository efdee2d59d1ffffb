"""Settings file for gunicorn, made from nitrolib's own settings (NITRO_* in the environment).

    gunicorn -c python:nitrolib.adapters.gunicorn

One worker process, which holds the engine, with a thread for every answer that runs or waits.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from nitrolib.config import Settings
from nitrolib.errors import NitroError

if TYPE_CHECKING:
    from flask import Flask

MAX_PARALLEL = 64  # slots that a loadmodel request may ask for
SPARE_THREADS = 16  # for health, status and unload, which must be answered at any time

_settings = Settings.from_environment()


def application() -> Flask:
    """The WSGI application, made in the worker: the engine's thread would not survive a fork."""
    from .rest import create_app

    logging.basicConfig(
        level=_settings.log_level.upper(),
        stream=sys.stderr,
        format="[%(asctime)s] [%(process)d] [%(levelname)s] %(name)s: %(message)s",
    )
    try:
        return create_app(settings=_settings)
    except NitroError as error:
        logging.getLogger("nitrolib").critical("the server cannot start: %s", error)
        sys.exit(3)  # gunicorn's own status for a worker that cannot boot: it gives up


def worker_exit(_server: Any, worker: Any) -> None:
    """End the engine: what still runs is told so, and its threads come to an end."""
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions["nitrolib"].close()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


wsgi_app = "nitrolib.adapters.gunicorn:application()"
bind = [_address(_settings.host, _settings.listen_port)]
preload_app = False

workers = 1
worker_class = "nitrolib.adapters.worker.Worker"  # gthread
# Threads are made when they are needed, and one that waits costs little.
_per_model = _settings.max_queue + max(_settings.n_parallel, MAX_PARALLEL)
threads = _per_model * _settings.max_models + SPARE_THREADS
worker_connections = threads + 1000

# A worker is never ended for being busy: loading a large model at the start may take minutes.
timeout = 0
graceful_timeout = 30  # for answers that run when the server is told to stop
keepalive = 75
limit_request_line = 8190  # gunicorn's most; ids in a query, escaped, may pass its usual 4094

errorlog = "-"  # stderr
loglevel = _settings.log_level
accesslog = None
# The heartbeat file of the worker: in memory where that is possible, since a slow disk can block.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
control_socket_disable = True  # nothing here needs a second way in
