"""SlotState: what a slot has evaluated, taken out to be kept and put back later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Conflict, InvalidRequest, Unsupported

if TYPE_CHECKING:
    from ..backends.base import Runtime
    from .scheduler import Scheduler
    from .slots import Slot

__all__ = ["SlotState", "SlotStates"]


@dataclass(frozen=True, slots=True)
class SlotState:
    """The KV cache of a slot: the tokens it holds, the strengths of the LoRA adapters they were
    evaluated with, and the native state. It fits the same file loaded with the same options."""

    tokens: tuple[int, ...]
    state: bytes
    lora: tuple[float, ...] = ()


class SlotStates:
    """Saves, restores and erases the slots of a loaded model. Only idle ones: what is at work
    belongs to its request. Every method from any thread but the scheduler's."""

    def __init__(self, runtime: Runtime, scheduler: Scheduler, n_adapters: int) -> None:
        self._runtime = runtime
        self._scheduler = scheduler
        self._n_adapters = n_adapters

    def save(self, number: int) -> SlotState:
        """Raises InvalidRequest for a slot that does not exist, Conflict for a busy one,
        Unsupported where the backend cannot."""
        self._check("state", number)
        return self._scheduler.call(lambda: self._scheduler.slots.save(self._idle(number)))

    def restore(self, number: int, state: SlotState) -> None:
        """Raises as `save`, and InvalidRequest for a state that does not fit; the slot is empty
        then."""
        self._check("state", number)
        if not isinstance(state, SlotState):
            raise _no_fit(f"got {type(state).__name__}")
        n_vocab = self._runtime.vocabulary.n_vocab
        if len(state.tokens) > self._runtime.n_ctx:
            raise _no_fit(f"it holds {len(state.tokens)} tokens")
        if not all(isinstance(one, int) and 0 <= one < n_vocab for one in state.tokens):
            raise _no_fit("it holds tokens that this model does not have")
        if state.tokens and len(state.lora) != self._n_adapters:
            raise _no_fit(f"it was made with {len(state.lora)} LoRA adapters")
        self._scheduler.call(lambda: self._scheduler.slots.restore(self._idle(number), state))

    def erase(self, number: int) -> int:
        """Empty a slot. Returns how many tokens it held."""
        self._check(None, number)
        return self._scheduler.call(lambda: self._erase(self._idle(number)))

    def _erase(self, slot: Slot) -> int:
        held = len(slot.tokens)
        self._scheduler.slots.clear(slot)
        return held

    def _check(self, capability: str | None, number: int) -> None:
        if isinstance(number, bool) or not isinstance(number, int):
            raise self._no_slot(number)
        if not 0 <= number < self._runtime.n_seq:
            raise self._no_slot(number)
        if capability is not None and capability not in self._runtime.capabilities:
            raise Unsupported(
                "this backend does not save what slots hold", field="id_slot", value=number
            )

    def _no_slot(self, number: object) -> InvalidRequest:
        return InvalidRequest(
            f"slot {number!r} does not exist",
            field="id_slot",
            value=number,
            allowed=f"0 to {self._runtime.n_seq - 1}",
        )

    def _idle(self, number: int) -> Slot:
        """In the scheduler's thread."""
        slot = self._scheduler.slots[number]
        if not slot.idle:
            raise Conflict(f"slot {number} is at work", slot=number)
        return slot


def _no_fit(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"the state does not fit this model: {why}",
        field="state",
        allowed="a state saved from the same model, loaded with the same options",
    )
