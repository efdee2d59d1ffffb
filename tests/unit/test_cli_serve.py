"""`nitro serve` up to the exec: what is checked, and what gunicorn is handed."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama

from nitrolib.cli import main
from nitrolib.config import OPTIONS, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Execed(Exception):
    """Stands for the process that would have been replaced."""

    def __init__(self, *args: Any) -> None:
        self.path, self.command, self.environ = args


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(*args: Any) -> None:
        raise Execed(*args)

    for name in [name for name in os.environ if name.startswith("NITRO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "execve", execve)
    # main() reports what it does not know as an error of ours; a test wants it as it is.
    monkeypatch.setattr("nitrolib.cli._report", _raise)


def _raise(error: Exception, message: str, status: int) -> int:
    if isinstance(error, Execed):
        raise error
    print(f"nitro: {message}", file=sys.stderr)
    return status


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("serve") / "small model.gguf")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield server.getsockname()[1]


def serve(*words: str) -> Execed:
    with pytest.raises(Execed) as caught:
        main(["serve", "--port", "0", *words])
    return caught.value


def test_it_becomes_gunicorn_with_the_settings_in_the_environment(model: Path) -> None:
    became = serve("--model", str(model), "--ctx-len", "64")
    assert became.path == sys.executable
    assert became.command[1:] == ["-m", "gunicorn", "-c", "python:nitrolib.adapters.gunicorn"]
    settings = Settings.from_environment(became.environ)
    assert (settings.model, settings.ctx_len) == (str(model), 64)


def test_port_0_becomes_a_free_one_and_is_told(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = Settings.from_environment(serve("--model", str(model)).environ).port
    assert port > 0
    out = capsys.readouterr().out
    assert out == f"nitro: serving small model.gguf at http://127.0.0.1:{port} (Ctrl-C stops)\n"


def test_an_argument_is_not_undone_by_a_variable_or_a_file_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nitro.toml"
    file.write_text('model = "other.gguf"\nctx_len = 9\n')
    monkeypatch.setenv("NITRO_CONFIG", str(file))
    monkeypatch.setenv("NITRO_CTX_LEN", "99")
    environ = serve("--no-model", "--ctx-len", "2048").environ
    settings = Settings.from_environment(environ)
    assert (settings.no_model, settings.model, settings.ctx_len) == (True, None, 2048)
    assert not {o.variable for o in OPTIONS if o.name == "ctx_len"} & environ.keys()


def test_a_taken_port_is_said_before_anything_starts(
    taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--no-model", "--port", str(taken)]) == 1
    assert f"port {taken} on 127.0.0.1 is taken" in capsys.readouterr().err


def test_a_foreign_address_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "--no-model", "--host", "192.0.2.1", "--api-key", "k", "--port", "0"]
    assert main(words) == 1
    assert "cannot listen on 192.0.2.1" in capsys.readouterr().err


def test_a_missing_model_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", "/none/there.gguf"]) == 1
    assert "/none/there.gguf" in capsys.readouterr().err


def test_a_damaged_model_is_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "cut.gguf"
    damaged.write_bytes(model.read_bytes()[:5000])
    assert main(["serve", "--model", str(damaged)]) == 1
    assert capsys.readouterr().err.startswith("nitro: ")


def test_without_the_server_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "flask" else found(name)
    )
    assert main(["serve", "--no-model", "--port", "0"]) == 1
    assert "pip install 'nitrolib[server]'" in capsys.readouterr().err


def test_a_misspelt_variable_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NITRO_PROT", "80")
    serve("--no-model")
    assert "NITRO_PROT is not a setting" in capsys.readouterr().err


def test_ipv6_is_shown_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    serve("--no-model", "--host", "::1")
    assert "http://[::1]:" in capsys.readouterr().out
