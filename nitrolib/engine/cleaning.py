"""When the KV cache is cleaned: a counter of chats that says "before this one"."""

from __future__ import annotations

from typing import Protocol

from ..errors import InvalidRequest

__all__ = ["CacheCleaningPolicy", "CleaningPolicy"]


class CleaningPolicy(Protocol):
    """What the scheduler asks. It is called from the scheduler thread alone, in the order in which
    requests were accepted; the two numbers may be read from any thread.

    chats_since_clean: chats counted since the last due cleaning, reset or load.
    cleanings: how often the cache was cleaned since load.
    """

    @property
    def chats_since_clean(self) -> int: ...

    @property
    def cleanings(self) -> int: ...

    def chat_accepted(self) -> bool:
        """Count one accepted chat. True: the cache has to be cleaned before that chat starts."""
        ...

    def cleaned(self) -> None:
        """A cleaning that was due has been carried out."""
        ...

    def reset(self) -> None:
        """Count from the beginning: the cache is empty (load, unload, an explicit clear)."""
        ...


class CacheCleaningPolicy:
    """Clean before every `threshold`-th chat: with 5, the 5th, 10th, 15th ... chat starts on an
    empty cache. 0 is never. Warm-up, plain completions and embeddings are not counted. Raises
    InvalidRequest for a negative threshold."""

    def __init__(self, threshold: int = 5) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, int) or threshold < 0:
            raise InvalidRequest(
                f"clean_cache_threshold must be a whole number of at least 0, got {threshold!r}",
                field="clean_cache_threshold",
                value=threshold,
                allowed="a whole number of at least 0; 0 is never",
            )
        self.threshold = threshold
        self.chats_since_clean = 0
        self.cleanings = 0

    def chat_accepted(self) -> bool:
        """Count one chat; True when it is the `threshold`-th since the last cleaning."""
        self.chats_since_clean += 1
        if not self.threshold or self.chats_since_clean < self.threshold:
            return False
        self.chats_since_clean = 0
        return True

    def cleaned(self) -> None:
        """Count one cleaning."""
        self.cleanings += 1

    def reset(self) -> None:
        """Start counting chats anew; `cleanings` stays."""
        self.chats_since_clean = 0
