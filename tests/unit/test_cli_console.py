"""The terminal side: exit statuses, one-line errors, no decoration where nobody looks."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import pytest

from nitrolib import cli
from nitrolib.cli import console, main
from nitrolib.errors import BackendError, ContextOverflow, InvalidRequest, ModelFileError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """main() over a command that raises what the test wants."""

    def install(error: BaseException) -> int:
        def run(_args: object) -> int:
            raise error

        def add_parser(commands: Any) -> None:
            commands.add_parser("fail").set_defaults(run=run)

        monkeypatch.setattr(cli.doctor, "add_parser", add_parser)
        return main(["fail"])

    monkeypatch.delenv("NITRO_DEBUG", raising=False)
    return install


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("wrong flag"), 2),
        (ContextOverflow(prompt_tokens=9, limit=8), 1),
        (ModelFileError("bad file"), 1),
        (BackendError("NaN"), 1),
        (FileNotFoundError(2, "No such file or directory", "a.gguf"), 1),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), 1),
        (RuntimeError("a fault of ours"), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (SystemExit(143), 143),
    ],
)
def test_every_end_has_its_status_and_no_traceback(
    failing: Any,
    error: BaseException,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert failing(error) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err == "" or (err.startswith("nitro: ") and err.count("\n") == 1)


def test_a_file_error_names_the_file(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(FileNotFoundError(2, "No such file or directory", "a.gguf"))
    assert capsys.readouterr().err == "nitro: a.gguf: No such file or directory\n"


def test_debug_shows_the_traceback(
    failing: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NITRO_DEBUG", "1")
    assert failing(ModelFileError("bad file")) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("nitro: bad file\n")


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.Style(io.StringIO()).bold("x") == "x"
    if os.name != "nt":
        assert console.Style(Terminal()).bold("x") == "\x1b[1mx\x1b[0m"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.Style(Terminal()).red("x") == "x"


def test_a_table_keeps_its_columns() -> None:
    rows = [("a", "1"), ("long name", "2\n3"), ("b", "")]
    assert console.table(rows) == "a          1\nlong name  2\n           3\nb"


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"hi", "hi"), (b"hi\n", "hi"), (b"a\r\nb\r\n", "a\nb"), ("é\n\n".encode(), "é\n"),
     (b"\xef\xbb\xbfhi", "hi")],
)  # fmt: skip
def test_standard_input_is_read_as_utf8_without_its_last_line_end(
    raw: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="ascii"))
    assert console.read_stdin() == text


def test_standard_input_that_is_not_utf8_is_refused_with_the_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    with pytest.raises(InvalidRequest, match="byte 2"):
        console.read_stdin()


def test_json_is_readable_where_the_terminal_can_and_escaped_where_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for encoding, shown in (("utf-8", "é"), ("ascii", "\\u00e9")):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        console.print_json({"text": "é"})
        written = raw.getvalue().decode(encoding)
        assert shown in written
        assert json.loads(written) == {"text": "é"}
