"""`nitro serve`: check everything that can be checked, then become gunicorn.

The server is started by exec: nitrolib imports no adapter, and signals reach gunicorn itself.
"""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from ..config import CONFIG_VARIABLE, OPTIONS, unknown_variables
from ..errors import BackendUnavailable, InvalidRequest, NitroError
from . import console
from .arguments import add_settings_flags, settings_from
from .model import model_path

if TYPE_CHECKING:
    import argparse

    from ..config import Settings
    from .arguments import Subparsers

_EPILOG = """\
Every flag is also a variable of the environment (--ctx-len is NITRO_CTX_LEN) and a name in the
file of --config (ctx_len = 2048); arguments win over variables, and those over the file."""
_NEEDED = ("flask", "gunicorn", "limits")


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "serve",
        help="start the REST server",
        description="Start the REST server (Nitro and OpenAI routes) under gunicorn. Without "
        "--model the bundled model is loaded, which gives way to the first one a client loads.",
        epilog=_EPILOG,
    )
    add_settings_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> NoReturn:
    settings = settings_from(args)
    for name in unknown_variables():
        console.complain(f"warning: {name} is not a setting and is ignored")
    _check_installed()
    settings.api_keys()  # raises now what the server would
    name = _check_model(settings)
    settings = replace(settings, port=_check_port(settings.host, settings.listen_port))
    print(f"nitro: serving {name} at {_url(settings)} (Ctrl-C stops)", flush=True)
    command = [sys.executable, "-m", "gunicorn", "-c", "python:nitrolib.adapters.gunicorn"]
    os.execve(sys.executable, command, server_environment(settings))  # noqa: S606 - no shell wanted


def server_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with *settings* in place of all that it said about them."""
    ours = {CONFIG_VARIABLE, *(option.variable for option in OPTIONS)}
    rest = {name: text for name, text in os.environ.items() if name not in ours}
    return rest | settings.to_environment()


def _check_installed() -> None:
    from importlib.util import find_spec

    if os.name == "nt":
        raise BackendUnavailable(
            "gunicorn does not run on Windows; serve nitrolib.adapters.rest:create_app() with "
            "another WSGI server, such as waitress",
            hint="pip install waitress",
        )
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BackendUnavailable(
            f"the server needs {' and '.join(missing)}: pip install 'nitrolib[server]'",
            hint="pip install 'nitrolib[server]'",
        )


def _check_model(settings: Settings) -> str:
    """What is served, in words; raises now what loading in the server would raise later."""
    if settings.no_model:
        return "no model yet"
    from ..backends import choose

    path = model_path(settings)
    choose(path, settings.backend)
    return os.path.basename(path) if settings.model else "the bundled model"


def _check_port(host: str, port: int) -> int:
    """*port*, or a free one for 0, once it has been bound: a second server is noticed here, with a
    message, and not by gunicorn's retries."""
    import socket

    bare = host[1:-1] if host.startswith("[") else host
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise InvalidRequest(
            f"host {host} is not an address of this machine: {error.strerror}",
            field="host",
            value=host,
            allowed="an address or name of this machine",
        ) from error
    with socket.socket(family, kind) as probe:
        # As gunicorn does: a port whose last server has just ended counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise NitroError(_why_not(error, host, port), host=host, port=port) from error
        bound: int = probe.getsockname()[1]
        return bound


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another program; --port takes another one"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; --port takes one above 1023"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"


def _url(settings: Settings) -> str:
    host = settings.host
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{shown}:{settings.listen_port}"
