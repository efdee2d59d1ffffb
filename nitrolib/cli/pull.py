"""`nitro pull`: fetch a model into the models folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import DownloadError, ModelNotFound
from . import console
from .arguments import STORAGE, add_settings_flags, settings_from
from .progress import Bar, Events, Lines

if TYPE_CHECKING:
    import argparse

    from ..models import Downloads, DownloadStatus
    from .arguments import Subparsers
    from .progress import Progress

_EPILOG = """\
SOURCE is the URL of a GGUF file, a repository of the Hugging Face Hub (ORG/REPO, with
ORG/REPO:Q4_K_M or hf://ORG/REPO/FILE.gguf to choose a file), or the id of a model in the models
folder whose file is absent. A download that was stopped goes on when it is asked for again."""
_LOOKS_S = 0.1


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "pull",
        help="download a model",
        description="Download a model into the models folder, and write its id on standard output.",
        epilog=_EPILOG,
    )
    parser.add_argument("source", metavar="SOURCE", help="where the model is")
    parser.add_argument("--id", metavar="ID", help="what to call it (default: the file's name)")
    parser.add_argument("--sha256", metavar="HEX", help="the SHA-256 that the file must have")
    parser.add_argument(
        "--allow-private",
        action="store_true",
        help="fetch from this machine and private networks too",
    )
    parser.add_argument("--json", action="store_true", help="write JSON events, one a line")
    add_settings_flags(parser, STORAGE, without=("database_url",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..models import ANY_HOST, Downloads, FetchPolicy, Registry

    settings = settings_from(args, STORAGE)
    # Whoever types a host may fetch from it; where that leads to is not for others to say.
    policy = FetchPolicy(hosts=ANY_HOST, allow_private=args.allow_private)
    progress: Progress = Events() if args.json else Bar() if sys.stderr.isatty() else Lines()
    with Downloads(Registry(settings.models_folder), policy) as downloads:
        status = _follow(downloads, _start(downloads, args), progress)
    if status.state == "downloaded":
        if not args.json:
            print(status.id)
        return 0
    if status.error is not None:
        if isinstance(status.error, DownloadError) and status.error.resumable:
            console.complain("note: the same command goes on with what is here")
        raise status.error
    return 1


def _start(downloads: Downloads, args: argparse.Namespace) -> DownloadStatus:
    """A source that is a model of the folder is fetched for that model."""
    try:
        entry = downloads.registry.get(args.source)
    except ModelNotFound:
        return downloads.start(args.source, id=args.id, sha256=args.sha256)
    return downloads.start(entry)


def _follow(downloads: Downloads, status: DownloadStatus, progress: Progress) -> DownloadStatus:
    """Show a download until it ends. Ctrl-C stops it and leaves what is here."""
    try:
        while status.active:
            progress.show(status)
            status = downloads.wait(status.id, _LOOKS_S)
    except BaseException:
        downloads.close()
        stopped = downloads.wait(status.id)
        progress.end(stopped)
        if stopped.state == "stopped" and stopped.bytes:
            console.complain("stopped; the same command goes on with what is here")
        raise
    progress.end(status)
    return status
