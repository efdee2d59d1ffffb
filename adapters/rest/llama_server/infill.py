"""/infill of the llama-server dialect: the prompts that models fill gaps by."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from nitrolib.errors import ContextOverflow

from ..problem import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nitrolib.engine import Engine

    from ..service import Lease

__all__ = ["prompt"]

# Names of the tokens in the vocabularies that have them.
_NAMES = {
    "prefix": (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>",
        "<PRE>", "\u2581<PRE>", "<|code_prefix|>",
    ),
    "suffix": (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>",
        "<SUF>", "\u2581<SUF>", "<|code_suffix|>",
    ),
    "middle": (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>",
        "<MID>", "\u2581<MID>", "<|code_middle|>",
    ),
    "repo": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "file": ("<|file_sep|>", "<fim-sep>"),
}  # fmt: skip
_PROJECT = "myproject\n"
_SNIPPET = "\n\n--- snippet ---\n\n"
_ROOM = 16  # least tokens of the answer that the texts leave room for


def prompt(
    body: Mapping[str, Any], limit: int | None, lease: Lease
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The token ids of an infill, and notes about what was cut: other files, then prefix, what the
    gap begins with, suffix, and the mark of the gap itself.

    Where they are too long, the suffix keeps its first quarter of the room, the prefix its last
    three, and the other files what is left. limit: most tokens of the answer, which they leave room
    for; None is at least a few.

    Raises Refused (501) for a model without these tokens, ContextOverflow where only marks fit.
    """
    engine = lease.engine
    marks = _marks(engine)
    before = engine.tokenize(body["input_prefix"], space_prefix=False)
    begun = engine.tokenize(body.get("prompt", ""), space_prefix=False)
    behind = engine.tokenize(body["input_suffix"], space_prefix=False)
    others = _others(body.get("input_extra", ()), marks, engine)
    vocabulary = engine.vocabulary
    bos = [vocabulary.bos] if vocabulary.add_bos and vocabulary.bos is not None else []

    n_ctx = lease.status.n_ctx
    fixed = len(bos) + 3 + len(begun)
    room = n_ctx - fixed - max(min(limit or _ROOM, n_ctx // 2), 1)
    if room < 2:
        raise ContextOverflow(prompt_tokens=fixed, limit=n_ctx)
    kept_behind = behind[: max(room // 4, room - len(before))]
    kept_before = _last(before, room - len(kept_behind))
    kept_others = _last(others, room - len(kept_behind) - len(kept_before))
    lost = {
        "input_prefix": len(before) - len(kept_before),
        "input_suffix": len(behind) - len(kept_behind),
        "input_extra": len(others) - len(kept_others),
    }
    notes = tuple(
        f"{name} was cut by {count} tokens to fit the context"
        for name, count in lost.items()
        if count
    )
    ids = [*bos, *kept_others, marks["prefix"], *kept_before, *begun]
    return (*ids, marks["suffix"], *kept_behind, marks["middle"]), notes


def _marks(engine: Engine) -> dict[str, int]:
    special = engine.vocabulary.special
    found = {
        mark: special[name]
        for mark, names in _NAMES.items()
        for name in reversed(names)  # the first that is there stays
        if name in special
    }
    missing = [mark for mark in ("prefix", "suffix", "middle") if mark not in found]
    if missing:
        raise Refused(
            HTTPStatus.NOT_IMPLEMENTED,
            f"Infill is not supported by this model: {missing[0]} token is missing",
            "not_supported",
        )
    return found


def _others(files: Any, marks: Mapping[str, int], engine: Engine) -> list[int]:
    """The tokens of the other files, the name of the project before them."""
    if not files:
        return []
    ids: list[int] = []
    if "repo" in marks:
        ids += [marks["repo"], *engine.tokenize(_PROJECT, space_prefix=False)]
    for file in files:
        if "file" in marks:
            name = file.get("filename", "tmp")
            ids += [marks["file"], *engine.tokenize(f"{name}\n", space_prefix=False)]
        else:
            ids += engine.tokenize(_SNIPPET, space_prefix=False)
        ids += engine.tokenize(file["text"], space_prefix=False)
    if "file" in marks:
        ids += [marks["file"], *engine.tokenize("filename\n", space_prefix=False)]
    return ids


def _last(ids: list[int], count: int) -> list[int]:
    return ids[max(len(ids) - count, 0) :]
