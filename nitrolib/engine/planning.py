"""Planning a step: which tokens of which slots the next decode evaluates."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from ..backends.base import Feed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..backends.base import LoraRuntime, RowsRuntime, Runtime
    from .slots import Slot

__all__ = ["BESIDE_DECODES", "PREFILL_CHUNK", "Planner", "SharedBatch", "SideBySide", "planner"]

PREFILL_CHUNK = 64
"""Prompt tokens in one step of a slot, where slots do not share the evaluation. Between two chunks
the loop notices cancellation and deadlines and gives decoding neighbours their token, so a chunk is
the longest anybody waits. Chunks are cut at fixed multiples from position 0, whatever runs beside
them: native results depend on how tokens are grouped, and a seeded request must give the same
tokens alone and in company."""

BESIDE_DECODES = 128
"""Prompt tokens in a shared step while others decode. It bounds how long they wait for a token:
beside seven decoding slots of a 1.1B model, parts of 512, 128 and 32 tokens of a 512-token prompt
made the longest gap 4.3, 1.3 and 0.43 s, and the prompt take 1.04, 1.12 and 1.48 times as long."""


class Step(NamedTuple):
    """What one decode evaluates, and the slots of which it evaluates a part of the prompt."""

    feeds: list[Feed]
    prefilling: list[Slot]


class Planner(Protocol):
    def next(self, slots: Iterable[Slot]) -> Step:
        """The next step; without feeds when there is nothing to do."""
        ...


def planner(runtime: Runtime, *, drafts: bool = False) -> Planner:
    """The planner for a runtime. With `drafts` decoding slots are fed what their work guesses,
    where the runtime gives the rows to tell whether it was right."""
    made: Planner
    if "shared_batch" in runtime.capabilities:
        rows = drafts and "rows" in runtime.capabilities
        n_outputs = cast("RowsRuntime", runtime).n_outputs if rows else 0
        made = SharedBatch(runtime.n_batch, spare_rows=max(n_outputs - runtime.n_seq, 0))
    else:
        made = SideBySide(min(PREFILL_CHUNK, runtime.n_batch))
    return AdapterTurns(made, runtime) if "lora" in runtime.capabilities else made


class SideBySide:
    """For slots that are evaluated one beside the other, not in one pass: one token for every
    decoding slot in slot order, then prompt chunks: of all slots while none decodes, else of the
    one that was admitted first, so that neighbours of a decoding slot delay it by one chunk a
    token, however many they are."""

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk

    def next(self, slots: Iterable[Slot]) -> Step:
        decoding, prefilling = _sort(slots)
        if decoding and len(prefilling) > 1:
            prefilling = [min(prefilling, key=_admitted)]
        feeds = [_token(slot) for slot in decoding]
        feeds.extend(_part(slot, self._room(slot)) for slot in prefilling)
        return Step(feeds, prefilling)

    def _room(self, slot: Slot) -> int:
        return self._chunk - len(slot.tokens) % self._chunk


class SharedBatch:
    """For slots that share one pass over the weights: one token for every decoding slot in slot
    order (a native graph is used again while the order stays), then prompts in the room that is
    left. Nobody's results depend on the cuts but by rounding, so they fill the batch.

    spare_rows: rows of logits that guesses may take; 0 is none.
    """

    def __init__(self, n_batch: int, spare_rows: int = 0) -> None:
        self._n_batch = n_batch
        self._spare_rows = spare_rows
        self._first = 0  # slots wait in turn where there are more than a batch holds

    def next(self, slots: Iterable[Slot]) -> Step:
        decoding, prefilling = _sort(slots)
        if len(decoding) > self._n_batch:
            self._first = (self._first + self._n_batch) % len(decoding)
            decoding = (decoding[self._first :] + decoding[: self._first])[: self._n_batch]
        room = self._n_batch - len(decoding)
        parts: list[tuple[Slot, int]] = []
        if prefilling:
            prefilling.sort(key=_admitted)
            at_once = min(room, BESIDE_DECODES) if decoding else room
            lengths = share(at_once, [_missing(slot) for slot in prefilling])
            parts = [one for one in zip(prefilling, lengths, strict=True) if one[1]]
            room -= sum(lengths)
        if self._spare_rows:
            feeds = self._guessing(decoding, room)
        else:
            feeds = [_token(slot) for slot in decoding]
        feeds.extend(_part(slot, length) for slot, length in parts)
        return Step(feeds, [slot for slot, _ in parts])

    def _guessing(self, decoding: list[Slot], room: int) -> list[Feed]:
        """The feeds of decoding slots, with what their work guesses in the room that is left."""
        feeds = []
        room = min(room, self._spare_rows)
        for slot in decoding:
            work = slot.work
            assert work is not None
            drafted = work.draft(room)
            room -= len(drafted)
            tokens = (work.next_token, *drafted)
            feeds.append(Feed(slot.number, tokens, "every" if drafted else "logits"))
        return feeds


class AdapterTurns:
    """For a runtime with LoRA adapters, which act on a whole evaluation: a step holds slots whose
    work wants the same strengths, and of those the ones that were fed longest ago."""

    def __init__(self, planner: Planner, runtime: Runtime) -> None:
        self._planner = planner
        self._runtime = cast("LoraRuntime", runtime)
        self._in_use: tuple[float, ...] | None = None
        self._turn = 0
        self._fed: dict[tuple[float, ...], int] = {}  # when, for all that are wanted now

    def next(self, slots: Iterable[Slot]) -> Step:
        busy = [slot for slot in slots if slot.work is not None and slot.follows is None]
        self._fed = {slot.lora: self._fed.get(slot.lora, 0) for slot in busy}
        if not busy:
            return Step([], [])
        scales = min(self._fed, key=self._fed.__getitem__)
        self._turn += 1
        self._fed[scales] = self._turn
        if scales != self._in_use:
            self._runtime.use_adapters(scales)
            self._in_use = scales
        return self._planner.next([slot for slot in busy if slot.lora == scales])


def share(room: int, needs: Sequence[int]) -> list[int]:
    """`room` over `needs` in equal parts; what one does not need goes to the others, and what
    cannot be divided to those that come first."""
    parts = [0] * len(needs)
    left = len(needs)
    for index in sorted(range(left), key=needs.__getitem__):
        parts[index] = min(needs[index], -(-room // left))
        room -= parts[index]
        left -= 1
    return parts


def _sort(slots: Iterable[Slot]) -> tuple[list[Slot], list[Slot]]:
    """The slots that decode, and those whose prompts have to be evaluated."""
    decoding: list[Slot] = []
    prefilling: list[Slot] = []
    for slot in slots:
        work = slot.work
        if work is not None and slot.follows is None:
            (decoding if len(slot.tokens) >= len(work.prompt) else prefilling).append(slot)
    return decoding, prefilling


def _token(slot: Slot) -> Feed:
    assert slot.work is not None
    return Feed(slot.number, (slot.work.next_token,))


def _part(slot: Slot, most: int) -> Feed:
    """The next part of a prompt. Only its end is asked for an output."""
    work, start = slot.work, len(slot.tokens)
    assert work is not None
    end = start + most
    output = work.output if end >= len(work.prompt) else "none"
    return Feed(slot.number, work.prompt[start:end], output)


def _missing(slot: Slot) -> int:
    assert slot.work is not None
    return len(slot.work.prompt) - len(slot.tokens)


def _admitted(slot: Slot) -> int:
    return slot.last_used
