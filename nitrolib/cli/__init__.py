"""The `nitro` command: one module a subcommand, heavy imports only inside the one that runs.

Exit status: 0 done, 1 the work failed, 2 the command was used wrongly, 130 stopped by Ctrl-C, 141
the reader of the output went away, 143 stopped by SIGTERM. Errors are one line on standard error;
NITRO_DEBUG=1 shows the traceback as well.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..errors import ContextOverflow, InvalidRequest, NitroError
from . import bench, chat, console, doctor, inspect, models, pull, run, serve
from .arguments import Parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["build_parser", "main"]

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

_COMMANDS = (serve, chat, run, pull, models, inspect, doctor, bench)
_DESCRIPTION = "Run local language models: serve them, talk to them, look into them."
_EPILOG = "'nitro COMMAND --help' tells more. Without --model every command uses the bundled model."


def build_parser() -> Parser:
    """The whole command line; `nitrolib.cli.main` and the documentation test read the same one."""
    from .._version import __version__

    parser = Parser(prog="nitro", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"nitro {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for command in _COMMANDS:
        command.add_parser(commands)
    for choice in commands.choices.values():
        choice.set_defaults(parser=choice)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """As parse_args, but an unknown flag is the subcommand's to complain of: it knows its help."""
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* (sys.argv when None) spells; returns the exit status."""
    console.prepare()
    try:
        args = _parse(argv)
        with console.terminable():
            status: int = args.run(args)
            sys.stdout.flush()  # so that a reader that went away is noticed here
        return status
    except SystemExit as stop:  # argparse, and SIGTERM
        return stop.code if isinstance(stop.code, int) else DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except NitroError as error:
        return _report(error, console.describe(error), _status_of(error))
    except OSError as error:
        return _report(error, console.describe(error), FAILED)
    except ModuleNotFoundError as error:
        return _report(error, f"{error.name} is missing; 'nitro doctor' tells more", FAILED)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a fault of ours
        return _report(error, f"unexpected {type(error).__name__}: {error}", FAILED)
    finally:
        console.release_stdout()


def _status_of(error: NitroError) -> int:
    """A prompt that is too long is no misuse: the same command works with a larger context."""
    misused = isinstance(error, InvalidRequest) and not isinstance(error, ContextOverflow)
    return MISUSED if misused else FAILED


def _report(error: Exception, message: str, status: int) -> int:
    if os.environ.get("NITRO_DEBUG") not in (None, "", "0"):
        import traceback

        traceback.print_exception(error)
    elif not isinstance(error, (NitroError, OSError, ModuleNotFoundError)):
        message += " (NITRO_DEBUG=1 shows where)"
    console.complain(message)
    return status
