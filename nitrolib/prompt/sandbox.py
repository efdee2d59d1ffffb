"""The one Jinja environment: chat templates come with model files, and a model file is not trusted.

A template sees plain data, a short list of methods and filters, and nothing of Python. What it
makes, loops over and calls is paid from a budget (`budget.py`). Its literals are traced
(`traced.py`), so that the text it renders still tells template text from message text.

Importing this module imports jinja2; `chat_template.py` does so when a template is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ..errors import InvalidRequest, ModelFileError
from .budget import ITEM_CHARS, BudgetSpent, limited, spend
from .traced import TracedStr, joined, traced, written

if TYPE_CHECKING:
    from jinja2.parser import Parser
    from jinja2.runtime import Context

METADATA_KEY = "tokenizer.chat_template"
MAX_SOURCE_CHARS = 128 * 1024  # the longest template in use is about a quarter of this
MAX_INT_BITS = 256
MAX_ITEMS = 1 << 20
MAX_FORMAT_WIDTH = 9999

# What templates use of Python's strings, lists and mappings; none of it changes or grows much.
STR_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable",
    "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
    "splitlines", "startswith", "strip", "swapcase", "title", "upper",
})  # fmt: skip
DATA_METHODS = frozenset({"count", "get", "index", "items", "keys", "values"})
# Jinja's filters, less those that make text of any width (center, format, wordwrap, ...).
JINJA_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "forceescape", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max",
    "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "string", "title",
    "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
)  # fmt: skip


class RaisedByTemplate(TemplateError):
    """The template called raise_exception: it does not take these messages."""


# --- values ----------------------------------------------------------------------------------


def _weight(value: Any) -> int:
    """Characters and items in plain data, everything counted as often as it is reached: lists that
    hold each other many times over are as heavy as they print."""
    total, steps, rest = 0, 0, [value]
    while rest:
        item = rest.pop()
        total += ITEM_CHARS
        steps += 1
        if steps % 4096 == 0:
            spend(4096 * ITEM_CHARS)  # the walk itself is work
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, Mapping):
            rest.extend(item)
            rest.extend(item.values())
        elif isinstance(item, (list, tuple)):
            rest.extend(item)
        elif isinstance(item, Namespace):
            # The one kind of value that can change later, so its weight cannot be kept.
            raise SecurityError("a namespace cannot be kept in another value")
        if len(rest) > MAX_ITEMS:
            raise BudgetSpent("it makes too large a list")
    return total


def _bounded(value: Any) -> Any:
    """A value the template just made, paid for; an iterator becomes a list, item by item."""
    if isinstance(value, str):
        spend(len(value))
    elif isinstance(value, Iterator):
        return _collected(value)
    elif isinstance(value, (list, tuple, dict)):
        spend(_weight(value))
    else:
        spend()
    return value


def _collected(items: Iterator[Any]) -> list[Any]:
    collected = []
    for item in items:
        spend(_weight(item))
        collected.append(item)
    return collected


def _text(value: Any) -> str:
    """A value as `{{ value }}` writes it. Only plain data can be written."""
    if isinstance(value, str):
        spend()
        return value
    if value is None or isinstance(value, (bool, int, float, Undefined)):
        return str(value)
    if isinstance(value, (list, tuple, dict)):
        spend(_weight(value))
        return str(value)
    raise TemplateRuntimeError(f"a {type(value).__name__} cannot be written")


def _join_texts(values: Iterable[Any]) -> TracedStr:
    return joined([_text(value) for value in values])


def _all_written(values: Iterable[Any]) -> bool:
    return all(
        value.is_written if isinstance(value, TracedStr) else not isinstance(value, str)
        for value in values
    )


# --- operators -------------------------------------------------------------------------------


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return joined((left, right))
    if isinstance(left, (list, tuple)):
        spend(_weight(left) + _weight(right))
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    if isinstance(right, (str, list, tuple)):
        left, right = right, left
    if isinstance(left, str):
        return traced(left) * right
    if isinstance(left, (list, tuple)):
        spend(_weight(left) * max(0, right))
    elif isinstance(left, int) and isinstance(right, int):
        _check_int(left.bit_length() + right.bit_length())
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        _check_int(left.bit_length() * abs(right))
    return left**right


def _check_int(bits: int) -> None:
    if bits > MAX_INT_BITS:
        raise BudgetSpent("it makes too large a number")


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        if "*" in left or any(int(width) > MAX_FORMAT_WIDTH for width in re.findall(r"\d+", left)):
            raise BudgetSpent("it makes too wide a text")
        spend(len(left) + left.count("%") * (MAX_FORMAT_WIDTH + _weight(right)))
        left = str.__str__(left)
    return left % right


# --- filters and globals ---------------------------------------------------------------------


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A Jinja filter whose result is paid for, and stays template text if all of its input was."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        spend()
        result = _bounded(function(*args, **kwargs))
        is_forgotten = type(result) is str and isinstance(args[0], TracedStr)
        if is_forgotten and _all_written((*args, *kwargs.values())):
            return written(result)
        return result

    return guarded


def _do_join(value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> TracedStr:
    items = list(value) if not isinstance(value, str) else list(traced(value))
    if attribute is not None:
        items = [ENVIRONMENT().getitem(item, attribute) for item in items]
    return traced(_text(d)).join([_text(item) for item in items])


def _do_replace(s: Any, old: Any, new: Any, count: int | None = None) -> TracedStr:
    return traced(_text(s)).replace(_text(old), _text(new), -1 if count is None else count)


def _do_indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> TracedStr:
    text = traced(_text(s))
    # Line breaks are written anew, and may stand for the message's own.
    newline = written("\n") if text.is_written else traced("\n")
    pad = traced(width) if isinstance(width, str) else written(" ") * width
    lines = (text + newline).splitlines()
    spend(len(pad) * len(lines))
    rest = [pad + line if line or blank else line for line in lines[1:]]
    return joined((pad if first else "", newline.join([lines[0], *rest])))


def _do_round(value: float, precision: int = 0, method: str = "common") -> Any:
    if abs(precision) > 50:
        raise BudgetSpent("it makes too large a number")
    return FILTERS["round"](value, precision, method)


def _do_sum(iterable: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise TemplateRuntimeError("only numbers can be summed")
    return FILTERS["sum"](ENVIRONMENT(), iterable, attribute, start)


def _do_tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: not HTML-escaped, keys as they come, text as it is."""
    width = len(indent) if isinstance(indent, str) else abs(indent or 0)
    spend(_weight(value) * (2 + width))
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object = "") -> NoReturn:
    raise RaisedByTemplate(str(message))


def _strftime_now(format: str) -> str:  # noqa: A002 - the name is the templates'
    if len(format) > 256:
        raise BudgetSpent("it makes too much text")
    return datetime.now().astimezone().strftime(format)


# --- the environment -------------------------------------------------------------------------


class _Tracing(CodeGenerator):
    """Compiles a template so that its literals are traced and what it does is paid for."""

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.value, str):
            self.write(f"environment.written({node.value!r})")
        else:
            super().visit_Const(node, frame)

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return f"environment.written({''.join(group)!r})"

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.join_texts((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        step = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        super().visit_For(node, frame)

    def _paid(self, visit: Callable[[Any, Frame], None], node: Any, frame: Frame) -> None:
        self.write("environment.bounded(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._paid(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._paid(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._paid(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_ScopedEvalContextModifier(  # noqa: N802
        self,
        node: nodes.ScopedEvalContextModifier,
        frame: Frame,  # noqa: ARG002
    ) -> None:
        raise TemplateSyntaxError("autoescape has no place in a chat template", node.lineno)


class _Generation(Extension):
    """`{% generation %}`, with which training code finds the assistant's text: no effect here."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox. Beyond Jinja's own: a list of what may be called, and a budget for it."""

    code_generator_class = _Tracing
    intercepted_binops = frozenset(("+", "*", "**", "%"))
    concat = staticmethod(_join_texts)
    written = staticmethod(written)
    join_texts = staticmethod(_join_texts)
    bounded = staticmethod(_bounded)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # folded constants would escape the tracing
            finalize=_text,
            extensions=[LoopControlExtension, _Generation],
        )
        self.binop_table.update({"+": _add, "*": _multiply, "**": _power, "%": _modulo})
        ours = {
            "indent": _do_indent,
            "join": _do_join,
            "replace": _do_replace,
            "round": _do_round,
            "safe": _text,
            "string": _text,
            "sum": _do_sum,
            "tojson": _do_tojson,
        }
        chosen = {name: FILTERS[name] for name in JINJA_FILTERS} | ours
        self.filters = {name: _guarded(function) for name, function in chosen.items()}
        for name in ("lipsum",):
            del self.globals[name]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    @staticmethod
    def step() -> None:
        """Called at the beginning of every turn of a loop; `call` does the counting."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return False  # their methods are handed out by getattr alone
        if isinstance(obj, (bytes, int, float, complex, list, tuple, Mapping, range)):
            return attr in DATA_METHODS
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No str.format: Jinja would hand it out before asking `is_safe_attribute`, and the widths
        that it takes are not bounded."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, str) and attribute in STR_METHODS:
            return getattr(traced(obj), attribute)
        return super().getattr(obj, attribute)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        spend()
        return _bounded(super().call(__context, __obj, *args, **kwargs))


@lru_cache(maxsize=1)
def ENVIRONMENT() -> ChatEnvironment:  # noqa: N802 - a constant, made when first needed
    """The one environment of the tree."""
    return ChatEnvironment()


def compile_template(source: str) -> Template:
    """The template, ready to render. Raises ModelFileError where it is not one."""
    if len(source) > MAX_SOURCE_CHARS:
        raise _broken(f"it has {len(source)} characters, and {MAX_SOURCE_CHARS} are allowed")
    try:
        with limited(len(source)):
            return ENVIRONMENT().from_string(source)
    except TemplateSyntaxError as error:
        raise _broken(f"line {error.lineno}: {error.message}") from error
    except Exception as error:  # whatever a parser and two compilers can be made to raise
        raise _broken(_reason(error)) from error


def render_template(
    template: Template, variables: Mapping[str, Any], input_chars: int
) -> TracedStr:
    """The text, each character marked as the template's or the messages'.

    Raises InvalidRequest where the template does not take the messages, and ModelFileError where
    it leaves the sandbox or uses up its budget.
    """
    context = template.new_context(dict(variables))
    try:
        with limited(input_chars):
            return _join_texts(template.root_render_func(context))
    except RaisedByTemplate as error:
        raise _refused(str(error)) from error
    except (BudgetSpent, SecurityError, RecursionError, MemoryError) as error:
        raise _broken(_reason(error)) from error
    except Exception as error:  # a template can make any operation fail on data it did not expect
        raise _refused(f"the chat template failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(
        message or "the chat template refuses these messages",
        field="messages",
        allowed="messages that the model's chat template takes",
    )


def _broken(reason: str) -> ModelFileError:
    return ModelFileError(f"the chat template cannot be used: {reason}", key=METADATA_KEY)
