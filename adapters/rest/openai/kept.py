"""Responses that are kept: written, read, gone on from, and the items they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nitrolib.store import Store, StoredResponse

    from ..service import Service
    from .items import Item

__all__ = ["MAX_ITEMS", "before", "input_items", "keep", "shown"]

MAX_ITEMS = 4096  # that one response is made of, those of the responses before it included

# What stands in columns of its own; the rest of a response is kept as it is.
_COLUMNS = frozenset({"id", "created_at", "model", "previous_response_id", "output", "metadata"})


def keep(here: Service, items: Sequence[Item], response: Mapping[str, Any]) -> None:
    """Keep a whole *response* and the *items* of its request. Raises StorageError, and NotFound
    where the response before it was deleted meanwhile."""
    here.store.responses.create(
        id=response["id"],
        created_at=response["created_at"],
        model=response["model"],
        previous_id=response["previous_response_id"],
        input=items,
        output=response["output"],
        body={name: value for name, value in response.items() if name not in _COLUMNS},
        metadata=response["metadata"],
    )


def shown(kept: StoredResponse) -> dict[str, Any]:
    """The response as it was when it was kept."""
    return {
        "id": kept.id,
        "created_at": kept.created_at,
        "model": kept.model,
        "previous_response_id": kept.previous_id,
        "output": list(kept.output),
        "metadata": dict(kept.metadata),
        **kept.body,
    }


def before(here: Service, previous_id: str | None, more: int) -> list[Item]:
    """The items that a request with *more* of them goes on from: those of the response
    *previous_id* and of all before it. Raises NotFound naming the field, and InvalidRequest for a
    conversation that has grown too long."""
    found: list[Item] = []
    if previous_id is not None:
        try:
            found = _items(here.store.responses.chain(previous_id))
        except NotFound as error:
            error.field = "previous_response_id"  # type: ignore[attr-defined]  # as a fact
            raise
    if len(found) + more > MAX_ITEMS:
        raise InvalidRequest(
            f"the conversation has {len(found) + more} items",
            field="input",
            value=len(found) + more,
            allowed=f"at most {MAX_ITEMS} items, those of previous responses included",
        )
    return found


def input_items(
    store: Store, response_id: str, *, order: str, after: str | None, limit: int
) -> dict[str, Any]:
    """A page of what a response was made of: the items before it and its own input. Raises
    NotFound, and InvalidRequest for an *after* that is none of them."""
    *earlier, own = store.responses.chain(response_id)
    items = [*_items(earlier), *(dict(item) for item in own.input)]
    if order == "desc":
        items.reverse()
    if after is not None:
        items = _after(items, after)
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > limit,
    }


def _items(chain: Sequence[StoredResponse]) -> list[Item]:
    return [dict(item) for one in chain for item in (*one.input, *one.output)]


def _after(items: list[Item], last: str) -> list[Item]:
    ids = [item["id"] for item in items]
    if last not in ids:
        raise InvalidRequest(
            "after must be the id of an item of this response",
            field="after",
            value=last[:100],
            allowed="the last_id of a page",
        )
    return items[ids.index(last) + 1 :]
