"""Reads the JSON body of a request: lenient where clients are sloppy, strict where it matters.

Trailing commas and comments are accepted, as the dialect's own examples need; NaN and Infinity,
numbers that overflow, repeated keys and texts that are not Unicode are refused, because they would
reach the engine as something other than what was meant.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import RequestEntityTooLarge

from nitrolib.errors import InvalidRequest
from nitrolib.validation import shorten

if TYPE_CHECKING:
    from flask import Request

__all__ = ["MAX_DEPTH", "parse", "read", "read_array"]

MAX_DEPTH = 64  # of arrays and objects inside each other
MAX_DIGITS = 40  # of an integer: int() takes quadratic time, and no field comes near


def read(request: Request, *, optional: bool = False, any_type: bool = False) -> dict[str, Any]:
    """The JSON object in the body of *request*; with *optional* {} where there is no body, with
    *any_type* whatever its Content-Type says.

    Raises InvalidRequest for another content type and for all that `parse` refuses; werkzeug's
    RequestEntityTooLarge for a body that reaches the application's MAX_CONTENT_LENGTH.
    """
    if optional and not request.mimetype and not request.get_data():
        return {}
    if not any_type:
        _check_type(request)
    return parse(_bytes(request, cache=optional))


def read_array(request: Request) -> list[Any]:
    """The JSON array in the body of *request*. Raises as `read` does."""
    _check_type(request)
    value = _parse(_bytes(request))
    if not isinstance(value, list):
        raise _refuse(f"it must be a JSON array, got {shorten(value)}")
    return value


def _bytes(request: Request, *, cache: bool = False) -> bytes:
    body = request.get_data(cache=cache)
    limit = request.max_content_length
    # werkzeug refuses a declared length over the limit, and cuts an undeclared one in silence.
    if limit is not None and len(body) >= limit:
        raise RequestEntityTooLarge
    return body


def _check_type(request: Request) -> None:
    kind = request.mimetype
    if not (kind.startswith("application/") and kind.endswith(("/json", "+json"))):
        raise InvalidRequest(
            f"the Content-Type must be application/json, got {shorten(kind or 'none')}",
            field="Content-Type",
            value=kind,
            allowed="application/json",
        )


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object that *body* holds; InvalidRequest says what is wrong with it, and where."""
    value = _parse(body)
    if not isinstance(value, dict):
        raise _refuse(f"it must be a JSON object, got {shorten(value)}")
    return value


def _parse(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refuse(f"it is not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise _refuse("it is empty")
    try:
        value = _load(text)
    except json.JSONDecodeError:
        value = _load_relaxed(text)
    # Only an escape can bring half a surrogate pair into decoded UTF-8.
    if _SURROGATE.search(text):
        _check_unicode(value, "")
    return value


def _load_relaxed(text: str) -> Any:
    try:
        return _load(_strip_trailing_commas(_strip_comments(text)))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _refuse(f"{error.msg} at {where}") from None


def _load(text: str) -> Any:
    """json.loads with our rules; JSONDecodeError is left to the caller."""
    if _depth(text) > MAX_DEPTH:
        raise _refuse(f"it is nested deeper than {MAX_DEPTH} levels")
    return json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_constant,
        parse_float=_float,
        parse_int=_int,
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InvalidRequest(
            f"the name {shorten(name)} stands twice in one object of the body",
            field=name[:64],
            allowed="once",
        )
    return result


def _constant(word: str) -> Any:
    raise _refuse(f"{word} is not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _refuse(f"the number {shorten(digits)} is too large")
    return value


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _refuse(f"the number {shorten(digits)} is too large")
    return int(digits)


# Every alternative below also matches when its end is missing, so that a hostile text is scanned
# once from left to right: an unclosed quote must not be tried again at every later quote.
_STRING = r'"(?:[^"\\]+|\\.)*"?'
_STRINGS = re.compile(_STRING, re.DOTALL)
_BRACKETS = re.compile(r"[^\[\]{}]+")
_COMMENTS = re.compile(_STRING + r"|//[^\n]*|/\*(?:.*?\*/|.*\Z)", re.DOTALL)
_COMMAS = re.compile(_STRING + r"|,(?=\s*[}\]])", re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _depth(text: str) -> int:
    """Deepest nesting of arrays and objects, or an upper bound of it that is within the limit.

    Counted before parsing: the parser recurses in C, where no limit of ours would be heard.
    """
    bound = text.count("[") + text.count("{")
    if bound <= MAX_DEPTH:
        return bound
    depth = deepest = 0
    for bracket in _BRACKETS.sub("", _STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _strip_comments(text: str) -> str:
    """Comments become blanks, line breaks stay: positions in error messages remain true."""

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return _COMMENTS.sub(blank, text) if "/" in text else text


def _strip_trailing_commas(text: str) -> str:
    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found != "," or not _ends_item(text, match.start()) else " "

    return _COMMAS.sub(blank, text)


def _ends_item(text: str, comma: int) -> bool:
    """Whether something stands between the comma and what it would have to separate it from:
    `[1,]` has a trailing comma, `[,]` and `[1,,]` are mistakes."""
    before = comma - 1
    while before >= 0 and text[before].isspace():
        before -= 1
    return before >= 0 and text[before] not in "[{,:"


def _check_unicode(value: object, pointer: str) -> None:
    """Recursion is bounded: `_depth` has been checked."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"{pointer[1:]} is not Unicode: half a surrogate pair at character {error.start}",
                field=pointer[1:],
                allowed="text without lone surrogates",
            ) from None
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_unicode(name, f"{pointer}/(name)")
            _check_unicode(item, f"{pointer}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_unicode(item, f"{pointer}/{index}")


def _refuse(reason: str) -> InvalidRequest:
    message = f"the body cannot be read: {reason}"
    return InvalidRequest(message, allowed="a JSON object", rule="json")
