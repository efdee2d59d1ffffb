"""The plot of `nitro bench`: rates over the number of answers at once, a line for each backend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import BackendUnavailable, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .measure import Figures

__all__ = ["check_plot", "draw"]

_PANELS = (
    ("total_tokens_per_s", "answers, all together"),
    ("decode_tokens_per_s", "decode, one answer"),
    ("prefill_tokens_per_s", "prefill, one prompt"),
)
_KINDS = (".pdf", ".png", ".svg")


def check_plot(path: str) -> None:
    """Raise before anything is measured: InvalidRequest for a file that could not be written,
    BackendUnavailable where matplotlib is missing."""
    if os.path.splitext(path)[1].lower() not in _KINDS:
        raise InvalidRequest(
            f"--plot {path!r} has no ending of a picture",
            field="plot",
            value=path,
            allowed=", ".join(_KINDS),
        )
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InvalidRequest(
            f"--plot cannot write into {folder}",
            field="plot",
            value=path,
            allowed="a file in a folder that is there and can be written to",
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BackendUnavailable(
            "--plot needs matplotlib: pip install 'nitrolib[plot]'",
            hint="pip install 'nitrolib[plot]'",
        ) from None


def draw(
    path: str, title: str, results: Mapping[str, Mapping[int, Figures]], ticks: Sequence[int]
) -> None:
    """Write the picture: *results* are figures by backend and number of answers at once. Lines are
    medians, the shade around them runs from the least to the most."""
    from matplotlib.figure import Figure  # draws without a screen, and from any thread

    figure = Figure(figsize=(4.2 * len(_PANELS), 4.0), layout="constrained")
    figure.suptitle(title)
    for axes, (name, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for backend, by_count in results.items():
            found = [by_count[count][name] for count in ticks]
            middle = [one["median"] for one in found]
            axes.plot(ticks, middle, marker="o", label=backend)
            low, high = [one["min"] for one in found], [one["max"] for one in found]
            axes.fill_between(ticks, low, high, alpha=0.15)
        axes.set_title(label)
        axes.set_xlabel("answers at once")
        axes.set_ylabel("tokens per second")
        axes.set_xticks(list(ticks))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path, dpi=110)
