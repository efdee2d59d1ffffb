"""`nitro doctor`: faults are found, told, and answered with what to do. Faults are injected."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from nitrolib import backends, demo
from nitrolib.cli import doctor, examination, main


@pytest.fixture(autouse=True)
def _no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real trial is an integration test; here it passes unless a test says otherwise."""
    passed = {"passed": True, "reason": "", "text": "Hi", "completion_tokens": 1, "seconds": 0.01}
    monkeypatch.setattr(examination, "_trial", lambda: passed)


def test_a_machine_where_everything_works_is_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Models can run here." in out
    assert "\x1b" not in out


def test_a_trial_that_fails_is_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(examination, "_trial", lambda: {"passed": False, "reason": "no luck"})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "no luck" in out
    assert "Nothing can run here yet." in out


def test_a_missing_bundled_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise FileNotFoundError("the demo model is not installed: x")

    monkeypatch.setattr(demo, "model_path", gone)
    report = examination.examine()
    assert report["model"]["sound"] is False
    assert any("reinstall nitrolib" in advice for advice in report["advice"])


def test_a_backend_that_cannot_be_used_comes_with_its_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = backends.BackendInfo(
        name="some", version=None, variants=(), library=None, usable=False,
        reason="it is missing", hint="pip install some",
    )  # fmt: skip
    monkeypatch.setattr(backends, "available", lambda: (broken,))
    report = examination.examine()
    assert report["backends"][0]["usable"] is False
    assert "pip install some (for the backend some: it is missing)" in report["advice"]


def test_missing_packages_come_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = examination._version
    gone = ("flask", "jinja2")
    monkeypatch.setattr(
        examination, "_version", lambda name: None if name in gone else version(name)
    )
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["packages"]["jinja2"] is None
    assert any(advice.startswith("pip install jinja2") for advice in report["advice"])
    assert any("nitrolib[server]" in advice for advice in report["advice"])


def test_without_numpy_the_report_is_still_made(monkeypatch: pytest.MonkeyPatch) -> None:
    version = examination._version
    monkeypatch.setattr(
        examination, "_version", lambda name: None if name == "numpy" else version(name)
    )
    report = examination.examine()
    assert (report["can_run"], report["machine"]) == (False, None)
    assert doctor._as_text(report)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "signal 4"),
        ("import sys; sys.exit('nitro: no such file')", "no such file"),
        ("import sys; sys.exit(3)", "status 3"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_end_of_the_trial_is_put_in_words(code: str, words: str) -> None:
    child: subprocess.CompletedProcess[Any] = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False
    )
    assert words in examination._last_words(child)


def test_the_trial_runs_without_the_callers_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NITRO_MODEL", "other.gguf")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    environ = examination._child_environment()
    assert "NITRO_MODEL" not in environ
    assert environ["PYTHONPATH"].endswith("elsewhere")


def test_gpu_layers_that_are_set_and_cannot_be_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = backends.BackendInfo(
        name="some", version="1", variants=("CPU",), library="CPU", usable=True, gpu=False
    )
    gpu = {"usable": False, "devices": [], "missing": "driver", "reason": "no driver", "hint": "X"}
    monkeypatch.setattr(backends, "available", lambda: (alone,))
    monkeypatch.setattr(examination, "_gpu", lambda: gpu)
    monkeypatch.setenv("NITRO_NGL", "20")
    report = examination.examine()
    assert any(
        "ngl 20 is set" in advice and "no driver; X" in advice for advice in report["advice"]
    )
    assert "built for the processor alone" in doctor._as_text(report)
    monkeypatch.setenv("NITRO_NGL", "0")
    assert not any("ngl" in advice for advice in examination.examine()["advice"])
