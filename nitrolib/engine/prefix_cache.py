"""Which slot a prompt goes to: the one whose KV cache already begins like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .job import Work
    from .slots import Slot

__all__ = ["choose", "coming", "common_prefix", "emptiest", "held", "shared"]


def common_prefix(one: list[int], other: list[int]) -> int:
    """How many tokens two lists have in common from their beginning.

    Whole slices are compared, which runs in C, and halved where they differ: about 2n element
    comparisons, some 30 microseconds for 2,000 tokens.
    """
    n = min(len(one), len(other))
    if one[:n] == other[:n]:
        return n
    same, differs = 0, n  # equal up to `same`; the first difference lies below `differs`
    while differs - same > 1:
        middle = (same + differs) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def shared(tokens: list[int], prompt: list[int]) -> int:
    """How many tokens of `prompt` need not be evaluated after `tokens`. At least one is always
    left: logits come from evaluation."""
    return min(common_prefix(tokens, prompt), len(prompt) - 1)


def held(slot: Slot, work: Work) -> int:
    """How many tokens of the prompt of `work` the slot holds, computed as the work wants them."""
    return shared(slot.tokens, work.prompt) if slot.serves(work.lora) else 0


def coming(slot: Slot, work: Work) -> int:
    """How many it will hold once the prompt that is evaluated there now is evaluated in full; 0
    where none is. A slot that waits for another itself promises nothing."""
    other = slot.work
    if other is None or slot.decoding or slot.follows is not None or not slot.serves(work.lora):
        return 0
    return shared(other.prompt, work.prompt)


def choose(idle: Sequence[Slot], work: Work) -> tuple[Slot, int]:
    """The slot for `work` among `idle` (at least one), and how much of its prompt it may keep.

    The longest common prefix wins, ties go to the least recently used. One exception: a match of
    less than half the prompt does not win against an empty slot. Nearly all prompts begin alike
    (BOS, a system text), and without it two conversations would for ever throw each other out of
    the first slot while the others stand empty.

    Without `work.reuse` nothing is kept and the least recently used slot is taken.
    """
    if not work.reuse:
        return emptiest(idle), 0
    matches = [(held(slot, work), slot) for slot in idle]
    length, slot = min(matches, key=lambda match: (-match[0], match[1].last_used))
    if 2 * length < len(work.prompt):
        empty = [slot for slot in idle if not slot.tokens]
        if empty:
            return min(empty, key=lambda slot: slot.last_used), 0
    return slot, length


def emptiest(idle: Sequence[Slot]) -> Slot:
    """An empty slot, else the one whose record has served longest ago."""
    return min(idle, key=lambda slot: (bool(slot.tokens), slot.last_used))
