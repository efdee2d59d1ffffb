"""What the tables have in common: rows that are records, found by id and listed in pages."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import Conflict, InvalidRequest, NotFound
from .ids import check_id, is_id, new_id
from .records import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, RowMapping, Table
    from sqlalchemy.engine import Connection

    from .database import Database
    from .records import Order

__all__ = ["AT_ONCE", "MAX_PAGE", "Rows"]

MAX_PAGE = 100
AT_ONCE = 500  # ids in one query: databases bound the number
R = TypeVar("R")


class Rows(Generic[R]):
    """One table whose rows are records of one class.

    kind: what a row is called in errors, such as "thread".
    prefix: what the ids that are made here start with.
    fixed: fields that no update may change.
    """

    kind: str
    prefix: str
    record: type[R]
    table: Table
    fixed: frozenset[str] = frozenset({"id", "created_at"})

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._fields = {field.name: field for field in dataclasses.fields(self.record)}  # type: ignore[arg-type]

    def _now(self) -> int:
        return int(self._clock())

    def _find(self, connection: Connection, key: str, *where: ColumnElement[bool]) -> R:
        """The row *key*. Raises NotFound."""
        row = None
        if is_id(key):  # a text that is no id may be one that a database cannot even compare
            query = sa.select(self.table).where(self.table.c.id == key, *where)
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFound(self.kind, key)
        return self._records(connection, [row])[0]

    def _records(self, connection: Connection, rows: Sequence[RowMapping]) -> Sequence[R]:  # noqa: ARG002
        """*rows* as records."""
        return [self.record(**self._values(row)) for row in rows]

    def _values(self, row: RowMapping) -> dict[str, Any]:
        """Those columns of *row* that the record has."""
        return {name: value for name, value in row.items() if name in self._fields}

    def _insert(self, connection: Connection, values: Mapping[str, Any]) -> str:
        """Make a row of *values* and give its id; the id and the time are made where they are not
        given. Raises Conflict for an id that is taken, InvalidRequest for a value that cannot be
        kept."""
        return self._insert_all(connection, [self._row(values)])[0]

    def _insert_all(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Write *rows*, made by `_row`, at once and in their order, and give their ids. Raises
        Conflict for an id that is taken; nothing is written then."""
        ids = [row["id"] for row in rows]
        if not rows:  # an insert without values would make a row of its own
            return ids
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(self.table), list(rows))
        except IntegrityError as error:
            taken = self._taken(connection, ids)
            if taken is None:
                raise
            message = f"the {self.kind} {taken!r} is there already"
            raise Conflict(message, kind=self.kind, id=taken) from error
        return ids

    def _row(self, values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
        """All columns of a new row of *values*, which stand at *place* in what was given. Raises
        InvalidRequest for a value that cannot be kept."""
        given = self._defaults() | dict(values)
        key = given.get("id")
        given["id"] = new_id(self.prefix) if key is None else check_id(key, f"{place}id")
        if given.get("created_at") is None:
            given["created_at"] = self._now()
        self._check(given, place)
        return {name: given[name] for name in given if name in self.table.c}

    def _taken(self, connection: Connection, ids: Sequence[str]) -> str | None:
        """One of *ids* that stands there twice, or that a row has; None where there is none."""
        for key, number in Counter(ids).items():
            if number > 1:
                return key
        for row in self._rows(connection, ids):
            return str(row["id"])
        return None

    def _rows(self, connection: Connection, ids: Sequence[str]) -> Iterator[RowMapping]:
        """Those rows that have one of *ids*; in their order where they were made in it."""
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            query = sa.select(self.table).where(self.table.c.id.in_(some))
            yield from connection.execute(query.order_by(self.table.c.sequence)).mappings()

    def _change(
        self,
        connection: Connection,
        key: str,
        values: Mapping[str, Any],
        *where: ColumnElement[bool],
    ) -> R:
        """The row *key* with *values* in place of what it had. Raises NotFound."""
        wrong = values.keys() - (self._fields.keys() - self.fixed)
        if wrong:
            raise TypeError(f"a {self.kind} has no {', '.join(sorted(wrong))} to change")
        self._check(values)
        self._find(connection, key, *where)
        if values:
            change = sa.update(self.table).where(self.table.c.id == key)
            connection.execute(change.values(dict(values)))
        return self._find(connection, key)

    def _remove(self, connection: Connection, key: str, *where: ColumnElement[bool]) -> None:
        """Delete the row *key*. Raises NotFound."""
        self._find(connection, key, *where)
        connection.execute(sa.delete(self.table).where(self.table.c.id == key))

    def _page(
        self,
        connection: Connection,
        limit: int | None,
        order: Order,
        after: str | None,
        before: str | None,
        *where: ColumnElement[bool],
    ) -> Page[R]:
        """Part of the rows that *where* holds for.

        As the OpenAI API pages: `after` is where the page starts, `before` where it ends; with
        both, it starts behind `after`. Raises InvalidRequest for a limit outside 1 to 100, and for
        an order or a row that there is not.
        """
        _check_page(limit, order)
        sequence = self.table.c.sequence
        newest_first = order == "desc"
        conditions = list(where)
        for name, cursor, later in (("after", after, True), ("before", before, False)):
            if cursor is not None:
                place = self._place(connection, name, cursor, *where)
                upwards = later != newest_first
                conditions.append(sequence > place if upwards else sequence < place)
        backwards = before is not None and after is None
        falling = newest_first != backwards
        query = (
            sa.select(self.table)
            .where(*conditions)
            .order_by(sequence.desc() if falling else sequence.asc())
        )
        if limit is not None:
            query = query.limit(limit + 1)
        rows = list(connection.execute(query).mappings().all())
        more = limit is not None and len(rows) > limit
        rows = rows[:limit]
        if backwards:
            rows.reverse()
        return Page(data=tuple(self._records(connection, rows)), has_more=more)

    def _place(
        self, connection: Connection, field: str, cursor: str, *where: ColumnElement[bool]
    ) -> int:
        place: int | None = None
        if is_id(cursor):
            query = sa.select(self.table.c.sequence).where(self.table.c.id == cursor, *where)
            place = connection.execute(query).scalar_one_or_none()
        if place is None:
            raise InvalidRequest(
                f"{field} must be the id of a {self.kind} of the list, got {cursor[:100]!r}",
                field=field,
                value=cursor[:100],
                allowed=f"the id of a {self.kind} of the list",
            )
        return place

    def _defaults(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in self._fields.items():
            if field.default is not dataclasses.MISSING:
                found[name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                found[name] = field.default_factory()
        return found

    def _check(self, values: Mapping[str, Any], place: str = "") -> None:
        """Raise InvalidRequest for a value that one of the databases cannot keep as it is."""
        for name, value in values.items():
            kept = _is_text(value) if isinstance(value, str) else _is_json(value)
            if not kept:
                raise InvalidRequest(
                    f"{place}{name} cannot be kept",
                    field=f"{place}{name}",
                    allowed="text without NUL and lone surrogates, JSON of finite numbers",
                )


def _check_page(limit: int | None, order: str) -> None:
    if limit is not None and not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(
            f"limit must be from 1 to {MAX_PAGE}, got {limit}",
            field="limit",
            value=limit,
            allowed=f"from 1 to {MAX_PAGE}",
        )
    if order not in ("asc", "desc"):
        raise InvalidRequest(
            f"order must be asc or desc, got {order[:20]!r}",
            field="order",
            value=order[:20],
            allowed="asc or desc",
        )


def _is_text(value: str) -> bool:
    if "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_json(value: object) -> bool:
    if value is None or isinstance(value, int):
        return value is None or -(1 << 63) <= value < 1 << 63
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
