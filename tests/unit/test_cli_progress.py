"""How a download is shown: no line is too long, and nothing in a name moves the cursor."""

from __future__ import annotations

import pytest

from nitrolib.cli.progress import Lines, bar, size
from nitrolib.models import DownloadStatus


def status(**fields: object) -> DownloadStatus:
    told = {"id": "m", "source_url": "u", "state": "downloading", "file": "m.gguf", **fields}
    return DownloadStatus(**told)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("total", [None, 0, 7 << 30])
def test_a_bar_fits_its_line(width: int, total: int | None) -> None:
    for name in ("m.gguf", "x" * 300, "a\r\x1b[2Jb"):
        for done in (0, 5, 3 << 30, 7 << 30):
            line = bar(status(file=name, bytes=done, total=total, rate=3.5e6), width)
            assert len(line) <= width
            assert line.isprintable()


def test_a_bar_tells_how_far_it_is_and_how_long_it_takes() -> None:
    line = bar(status(bytes=1 << 30, total=4 << 30, rate=float(1 << 20)), 100)
    assert " 25% #" in line
    assert line.endswith("1.0 GiB of 4.0 GiB  1.0 MiB/s  51:12 left")
    assert bar(status(bytes=5), 80) == "m.gguf  5 bytes"


def test_lines_come_at_every_tenth_and_not_more_often(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for done in range(101):
        lines.show(status(bytes=done, total=100))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 11
    assert told[0].startswith("nitro: m.gguf   0%")
    assert told[-1].startswith("nitro: m.gguf 100%")


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_are_said_in_words(count: int, words: str) -> None:
    assert size(count) == words
