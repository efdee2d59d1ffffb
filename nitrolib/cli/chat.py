"""`nitro chat`: a conversation at the terminal, or one message a line through a pipe."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, NitroError
from . import console
from .arguments import (
    MODEL_AND_PROMPT,
    STORAGE,
    add_sampling_flags,
    add_settings_flags,
    sampling_params,
    settings_from,
)
from .model import open_engine, parameters, template

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from ..engine import Engine
    from ..session import ChatSession, Turn
    from .arguments import Subparsers

COMMANDS = {
    "/undo": "take back your last message and its answer",
    "/regenerate": "answer your last message again",
    "/system TEXT": "start over with this system message; without TEXT, with none",
    "/save FILE": "write the conversation to FILE",
    "/load FILE": "go on with the conversation in FILE",
    "/help": "this list",
    "/quit": "leave, as Ctrl-D does",
    "//TEXT": "send TEXT with one slash in front",
}


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "chat",
        help="talk with a model",
        description="Talk with a model. Ctrl-C stops an answer, Ctrl-D leaves, /help lists the "
        "commands. Through a pipe every line is a message, and only the answers are written.",
    )
    parser.add_argument("--system", metavar="TEXT", help="system message of the conversation")
    add_sampling_flags(parser)
    add_settings_flags(parser, MODEL_AND_PROMPT)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..session import ChatSession

    settings = settings_from(args, (*MODEL_AND_PROMPT, *STORAGE))
    params = sampling_params(args, parameters(settings))
    with open_engine(settings, clean_cache_threshold=0) as engine:
        session = ChatSession(
            engine,
            system=args.system,
            template=template(settings),
            params=params,
            context_policy="drop_oldest_turns",  # each time it drops some, a note says so
        )
        chat = Chat(engine, session)
        return chat.at_terminal() if sys.stdin.isatty() else chat.through_pipe()


class Chat:
    """A conversation and the commands about it."""

    def __init__(self, engine: Engine, session: ChatSession) -> None:
        self.engine = engine
        self.session = session
        self._decorated = sys.stdout.isatty()
        self._style = console.Style.of_stdout()

    def at_terminal(self) -> int:
        """Until Ctrl-D or /quit. What goes wrong is told, and the conversation goes on."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - editing and history of the line, by being imported
        self._greet()
        while True:
            try:
                line = input("> " if self._decorated else "")
            except EOFError:
                self._remark("")
                return 0
            except KeyboardInterrupt:
                self._remark("\n(Ctrl-D leaves)")
                continue
            try:
                if not self.take(line):
                    return 0
            except KeyboardInterrupt:
                self._remark("\n(stopped)")
            except (NitroError, OSError) as error:
                if isinstance(error, BrokenPipeError):
                    raise
                console.complain(console.describe(error))

    def through_pipe(self) -> int:
        """Every line a message, every answer on standard output. Status 1 if any of them failed."""
        status = 0
        for line in _lines():
            try:
                if not self.take(line):
                    break
            except (NitroError, OSError) as error:
                if isinstance(error, BrokenPipeError):
                    raise
                console.complain(console.describe(error))
                status = 1
        return status

    def take(self, line: str) -> bool:
        """Answer a line or obey it; False when it asks to leave. A blank line is nothing."""
        text = line.rstrip("\r\n")
        if text.startswith("//"):
            self._answer(lambda: self.session.stream(text[1:]))
        elif text.startswith("/"):
            return self._obey(*_split(text))
        elif text.strip():
            self._answer(lambda: self.session.stream(text))
        return True

    def _obey(self, command: str, rest: str) -> bool:
        if command in ("/quit", "/exit"):
            return False
        if command == "/help":
            print(console.table(list(COMMANDS.items())), flush=True)
        elif command == "/undo":
            self.session.undo()
            self._remark("(taken back)")
        elif command == "/regenerate":
            self._answer(self.session.stream_again)
        elif command == "/system":
            self.session = self._successor(rest or None)
            self._remark("(a new conversation)")
        elif command == "/save":
            self.session.save(_file(command, rest))
            self._remark(f"(saved to {rest})")
        elif command == "/load":
            self.session = self._loaded(_file(command, rest))
            self._remark(f"({len(self.session.messages)} messages)")
        else:
            raise InvalidRequest(
                f"there is no command {command}; /help lists them, // sends a slash",
                field="command",
                value=command,
                allowed=", ".join(COMMANDS),
            )
        return True

    def _successor(self, system: str | None) -> ChatSession:
        """An empty conversation that is otherwise like this one."""
        from ..session import ChatSession

        old = self.session
        return ChatSession(
            self.engine,
            system=system,
            template=old.template,
            params=old.params,
            context_policy=old.context_policy,
        )

    def _loaded(self, path: str) -> ChatSession:
        """The conversation in a file; sampling, and the prompts if any were given, stay those of
        this command."""
        from ..session import ChatSession

        old, new = self.session, ChatSession.load(path, self.engine)
        new.params, new.context_policy = old.params, old.context_policy
        new.template = old.template or new.template
        return new

    def _answer(self, start: Callable[[], Turn]) -> None:
        """Write an answer as it comes. At a terminal Ctrl-C ends it and no more: what there is of
        it belongs to the conversation."""
        last = "\n"
        with start() as turn:
            try:
                for chunk in turn:
                    if chunk.text:
                        console.write_answer(chunk.text)
                        last = chunk.text
                notes = turn.result().notes
            except KeyboardInterrupt:
                turn.keep()
                raise
        if not last.endswith("\n"):
            console.write_answer("\n")
        for note in notes:
            console.complain(f"note: {note}")

    def _greet(self) -> None:
        model = self.engine.status().model
        if model is not None:
            self._remark(
                f"{console.printable(model.name)}, {model.n_ctx:,} tokens of context. "
                "/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves."
            )

    def _remark(self, text: str) -> None:
        """For people only: nothing of it in a pipe or a file."""
        if self._decorated:
            print(self._style.dim(text) if text else "", flush=True)


def _lines() -> Iterator[str]:
    """The lines of standard input, each as soon as it is there."""
    for number, raw in enumerate(iter(sys.stdin.buffer.readline, b""), start=1):
        yield _decode(raw, number)


def _decode(raw: bytes, number: int) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"line {number} of standard input is not UTF-8", field="message", allowed="UTF-8 text"
        ) from error


def _split(text: str) -> tuple[str, str]:
    command, _, rest = text.strip().partition(" ")
    return command, rest.strip()


def _file(command: str, rest: str) -> str:
    if not rest:
        raise InvalidRequest(
            f"{command} needs the name of a file", field="file", value=rest, allowed="a path"
        )
    return rest
