"""Limits that a Linux control group (a container) puts on this process; nothing elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_V2 = "/sys/fs/cgroup"


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time the process may use, the least of its groups; None is no limit."""
    quotas = []
    for group in _groups(root, "cpu"):
        words = _words(group / "cpu.max") or (
            _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        )
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes the process may still take in the tightest of its groups; None is no limit.

    The page cache counts as free: the kernel takes it back before it refuses memory.
    """
    left = []
    for group in _groups(root, "memory"):
        limit = _number(group / "memory.max", group / "memory.limit_in_bytes")
        used = _number(group / "memory.current", group / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < 1 << 60:
            left.append(max(0, limit - max(0, used - _page_cache(group / "memory.stat"))))
    return min(left, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """This process's group of `controller` and every group above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            base = root / _V2.lstrip("/")
        elif controller in controllers.split(","):
            base = root / _V2.lstrip("/") / controller
        else:
            continue
        group = base / path.lstrip("/")
        # Inside a container the path is often that of the host and not there: the base then is.
        while group != base:
            yield group
            group = group.parent
        yield base


def _page_cache(stat: Path) -> int:
    words = _words(stat)
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    names = ("active_file", "inactive_file")
    return sum(int(pairs[name]) for name in names if pairs.get(name, "").isdigit())


def _number(*candidates: Path) -> int | None:
    for path in candidates:
        words = _words(path)
        if len(words) == 1 and words[0].isdigit():
            return int(words[0])
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []
