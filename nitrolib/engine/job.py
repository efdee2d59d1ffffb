"""What the scheduler sees of a request: a Job waits in the queue, its Work sits in a slot."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, NitroError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..backends.base import Output, Runtime
    from .handle import Outbox
    from .request import Kind, Timings
    from .room import Discard

__all__ = ["Job", "MakeError", "Work", "clock", "enter_loop", "refuse_in_loop"]

clock = time.perf_counter  # one clock for deadlines and timings, in seconds

MakeError = Callable[[Any], NitroError]
"""Makes the error a job ends with; it is given what there is so far (a Completion, or None)."""


_thread = threading.local()


def enter_loop() -> None:
    """Mark the current thread as one of a scheduler's: the loop, or what it waits for."""
    _thread.in_loop = True


def refuse_in_loop() -> None:
    """Raise InvalidRequest in a scheduler's thread: a wait for the loop would never end there."""
    if getattr(_thread, "in_loop", False):
        raise InvalidRequest("a done-callback must not wait for an engine: use another thread")


class Work(ABC):
    """A run of tokens through one slot: the prompt, then one token after another.

    prompt: the tokens to evaluate first, at least one.
    output: what is wanted of the last of them.
    leaves_record: whether the slot's KV cache may serve later prompts when this is done.
    lora: the strengths of the adapters it is evaluated with; () where the model has none.
    discard: tokens of the slot that have to go before `next_token` is fed; None for none.
    next_token: the token to feed next, once the prompt is evaluated.
    refused: how many of the last tokens that were fed did not come, and have to leave the slot.
    """

    prompt: list[int]
    output: Output
    leaves_record = True
    lora: tuple[float, ...] = ()
    discard: Discard | None = None
    next_token: int
    refused = 0

    @property
    @abstractmethod
    def job(self) -> Job: ...

    @property
    def reuse(self) -> bool:
        """Whether a slot that begins alike may be continued instead of evaluated again."""
        return False

    @property
    def donor(self) -> int | None:
        """The slot of a sibling that holds the prompt: to go on there, or from a copy of it."""
        return None

    def seated(self, slot: int) -> None:  # noqa: B027 -- most work does not care
        """It was given `slot`, where it may have to wait for another to evaluate what they share
        before it starts."""

    @abstractmethod
    def start(self, cached: int) -> None:
        """It begins in its slot, which holds the first `cached` tokens of the prompt already. Comes
        again when it was set back in between."""

    def prefilled(self, held: int) -> None:  # noqa: B027 -- most work does not care
        """A part of the prompt was evaluated, and its end is not: the slot holds `held` tokens."""

    def follow(self, logits: NDArray[np.float32]) -> bool:
        """As `advance`, with the logits (n_vocab,) after `next_token`. Only for work that was
        advanced before."""
        raise NotImplementedError

    def draft(self, most: int) -> list[int]:  # noqa: ARG002 -- most work has no idea
        """What may come after `next_token`, at most so many tokens, to be fed together with it."""
        return []

    def verify(self, rows: NDArray[np.float32], drafted: Sequence[int]) -> bool:
        """Take the outputs after `next_token` and after each drafted token, rows of (n_vocab,), as
        long as these are what comes. True when this work is done."""
        raise NotImplementedError

    def resume(self, tokens: list[int]) -> None:
        """It goes on after `tokens`, which take the place of the prompt: the slot has lost them in
        whole or in part. Only for work whose prompt was evaluated."""
        raise NotImplementedError

    def shifted(self, evaluated: int) -> None:
        """`discard` was done, and `evaluated` tokens have to be evaluated again for it."""
        raise NotImplementedError

    def out_of_room(self) -> bool:
        """It runs alone and the KV cache has no room for more. True when it ends with what it has,
        False when it fails."""
        return False

    @abstractmethod
    def advance(self, runtime: Runtime, slot: int) -> bool:
        """Take the output of the last evaluation. True when this work is done."""


class Job(ABC):
    """A place in the queue, and the account of everything run for it.

    kind: "chat" counts for the cleaning policy.
    deadline: on `clock`, None for none.
    clean_first: the cache has to be cleaned before its next work starts.
    """

    kind: Kind | None = None

    def __init__(self, outbox: Outbox[Any], *, submitted: float, timeout_s: float | None) -> None:
        self.outbox = outbox
        self.submitted = submitted
        self.deadline = None if timeout_s is None else submitted + timeout_s
        self.clean_first = False

    @property
    def id_slot(self) -> int:
        """The slot in which its next work must run, -1 for any."""
        return -1

    @property
    @abstractmethod
    def waiting(self) -> bool:
        """Whether there is work that has not been taken."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether all its work is done."""

    @abstractmethod
    def take(self) -> Work:
        """The next work to put into a slot."""

    @abstractmethod
    def put_back(self, work: Work) -> None:
        """Work that was taken has to be taken again: it lost its slot, and goes on later."""

    def spent(self) -> Timings | None:
        """What it took so far; None when it is not to be counted."""
        return None

    @abstractmethod
    def complete(self) -> None:
        """Deliver the end of it, after its slot was given back."""

    @abstractmethod
    def end(self, make: MakeError) -> None:
        """End with an error, after its slots were given back."""
