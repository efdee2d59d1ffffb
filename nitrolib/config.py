"""Settings of the server and the command, from a file < environment < arguments, validated once.

The fields of `Settings` are the one table: type, default, range, help, environment variable and
command-line flag of every option come from there, so that none of them can drift.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .errors import InvalidRequest

if TYPE_CHECKING:
    from .backends.base import LoadOptions
    from .prompt import PromptTemplate

__all__ = [
    "CONFIG_VARIABLE",
    "GROUPS",
    "OPTIONS",
    "Group",
    "Option",
    "Settings",
    "is_loopback",
    "unknown_variables",
]

CONFIG_VARIABLE = "NITRO_CONFIG"  # path of the TOML file
# Variables of ours that are no settings.
_OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "NITRO_DEBUG"})

Kind = Literal["text", "integer", "boolean", "list"]
Group = Literal["server", "model", "prompt"]
GROUPS: tuple[Group, ...] = ("server", "model", "prompt")
_KIND_WORDS = {
    "text": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
    "list": "a list of texts",
}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of the table.

    kind: "text", "integer", "boolean" or "list" (of texts; separated by commas as one string).
    optional: None is allowed, and is the default.
    least, most: range of an integer, both ends included.
    empty: an empty text is a value; else an empty environment variable counts as absent.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    group: Group
    metavar: str | None = None
    optional: bool = False
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    empty: bool = False

    @property
    def variable(self) -> str:
        """Its environment variable, such as NITRO_CTX_LEN."""
        return "NITRO_" + self.name.upper()

    @property
    def flag(self) -> str:
        """Its command-line flag, such as --ctx-len."""
        return "--" + self.name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.least is None:
            return _KIND_WORDS[self.kind]
        if self.most is None:
            return f"a whole number, {self.least} or more"
        return f"a whole number from {self.least} to {self.most}"

    def parse(self, text: str) -> Any:
        """The value that *text* (a variable or an argument) spells; InvalidRequest if none."""
        if self.kind == "integer":
            try:
                return self.check(int(text))
            except ValueError:  # InvalidRequest is one as well
                raise self._refuse(text) from None
        if self.kind == "boolean":
            word = text.strip().lower()
            if word not in _TRUE | _FALSE:
                raise self._refuse(text)
            return word in _TRUE
        if self.kind == "list":
            return self.check([part.strip() for part in text.split(",") if part.strip()])
        return self.check(text)

    def check(self, value: Any) -> Any:
        """*value* as Settings holds it; InvalidRequest if its type or range is wrong."""
        if value is None and self.optional:
            return None
        if self.kind == "list":
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise self._refuse(value)
            items = tuple(value)
            if not all(isinstance(item, str) and _is_item(item) for item in items):
                raise self._refuse(value)
            return items
        if self.kind == "boolean":
            fits = isinstance(value, bool)
        elif self.kind == "integer":
            fits = (
                isinstance(value, int)
                and not isinstance(value, bool)
                and (self.least is None or value >= self.least)
                and (self.most is None or value <= self.most)
            )
        else:
            fits = isinstance(value, str) and _is_clean(value) and bool(value or self.empty)
            fits = fits and (not self.choices or value in self.choices)
        if not fits:
            raise self._refuse(value)
        return value

    def spell(self, value: Any) -> str:
        """*value* as an environment variable holds it: the inverse of `parse`."""
        if self.kind == "boolean":
            return "1" if value else "0"
        return ",".join(value) if self.kind == "list" else str(value)

    def _refuse(self, value: Any) -> InvalidRequest:
        shown = "(hidden)" if self.name == "api_key" else repr(value)
        return InvalidRequest(
            f"{self.name} must be {self.allowed}, got {shown}",
            field=self.name,
            value=None if self.name == "api_key" else value,
            allowed=self.allowed,
        )


def _is_clean(text: str) -> bool:
    """No NUL: an environment variable cannot hold one, and neither can a path."""
    return "\0" not in text


def _is_item(text: str) -> bool:
    """Survives being joined with commas and split again."""
    return bool(text) and text == text.strip() and "," not in text and _is_clean(text)


def _option(
    kind: Kind,
    default: Any,
    help: str,  # noqa: A002 - the word argparse uses
    *,
    group: Group = "server",
    repr: bool = True,  # noqa: A002 - the word dataclasses use
    **more: Any,
) -> Any:
    row = {"kind": kind, "default": default, "help": help, "group": group, **more}
    row["optional"] = default is None
    return field(default=default, repr=repr, metadata=row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything `nitro serve` and the WSGI application can be told.

    Raises InvalidRequest, naming field, value and what is allowed, for a wrong value and for a
    combination that must not be: a model together with `no_model`, a bind that other machines can
    reach without an API key. A prompt that is None is the default of `PromptTemplate`; "" is an
    empty prompt.
    """

    host: str = _option("text", "127.0.0.1", "address to listen on", metavar="ADDRESS")
    port: int = _option(
        "integer", 3928, "port to listen on; 0 takes a free one", metavar="N", least=0, most=65535
    )
    api_key: str | None = _option(
        "text",
        None,
        "key that clients must send as 'Authorization: Bearer KEY' (better given in the "
        "environment: other users can see arguments)",
        metavar="KEY",
        repr=False,
    )
    allow_remote_without_key: bool = _option(
        "boolean", False, "allow an address that other machines can reach without an API key"
    )
    cors_origins: tuple[str, ...] = _option(
        "list",
        (),
        "web origins beyond loopback whose pages may use the server, separated by commas; * is any",
        metavar="ORIGINS",
    )
    max_queue: int = _option(
        "integer", 64, "requests that may wait before new ones are refused", metavar="N", least=0
    )
    max_body_bytes: int = _option(
        "integer", 8 * 1024 * 1024, "largest request body, in bytes", metavar="BYTES", least=1024
    )
    stream_default: bool = _option(
        "boolean", False, "stream chat answers when the request does not say"
    )
    log_level: str = _option(
        "text",
        "info",
        "how much is logged",
        choices=("debug", "info", "warning", "error", "critical"),
    )
    model: str | None = _option(
        "text",
        None,
        "GGUF file to load (default: the bundled model)",
        group="model",
        metavar="PATH",
    )
    no_model: bool = _option("boolean", False, "start without a model")
    backend: str = _option(
        "text", "auto", "backend that runs the model, or auto", group="model", metavar="NAME"
    )
    ngl: int | None = _option(
        "integer",
        None,
        "layers on the GPU; 0 is CPU only (default: as many as this machine can take)",
        group="model",
        metavar="N",
        least=0,
    )
    ctx_len: int = _option(
        "integer", 2048, "context tokens over all slots", group="model", metavar="N", least=1
    )
    n_parallel: int = _option(
        "integer",
        1,
        "slots: answers that may be generated side by side",
        group="model",
        metavar="N",
        least=1,
    )
    cont_batching: bool | None = _option(
        "boolean",
        None,
        "let a new prompt join while others are answered (default: with more than one slot)",
    )
    threads: int | None = _option(
        "integer",
        None,
        "compute threads over all slots (default: the available cores less one)",
        group="model",
        metavar="N",
        least=1,
    )
    clean_cache_threshold: int = _option(
        "integer",
        5,
        "chats between two cleanings of the cache; 0 is never",
        metavar="N",
        least=0,
    )
    pre_prompt: str | None = _option(
        "text", None, "text in front of every chat", group="prompt", metavar="TEXT", empty=True
    )
    system_prompt: str | None = _option(
        "text", None, "prefix of system messages", group="prompt", metavar="TEXT", empty=True
    )
    user_prompt: str | None = _option(
        "text", None, "prefix of user messages", group="prompt", metavar="TEXT", empty=True
    )
    ai_prompt: str | None = _option(
        "text", None, "prefix of the model's answers", group="prompt", metavar="TEXT", empty=True
    )

    def __post_init__(self) -> None:
        for option in OPTIONS:
            object.__setattr__(self, option.name, option.check(getattr(self, option.name)))
        self._check_together()

    def _check_together(self) -> None:
        if self.model is not None and self.no_model:
            raise InvalidRequest(
                f"no_model and model {self.model!r} contradict each other",
                field="no_model",
                value=True,
                allowed="one of the two",
            )
        if self.ctx_len < self.n_parallel:
            raise InvalidRequest(
                f"ctx_len {self.ctx_len} leaves no token for each of {self.n_parallel} slots",
                field="ctx_len",
                value=self.ctx_len,
                allowed=f"at least n_parallel ({self.n_parallel})",
            )
        if not (self.is_local or self.api_key or self.allow_remote_without_key):
            raise InvalidRequest(
                f"host {self.host} can be reached from other machines and no API key is set: set "
                "NITRO_API_KEY, or allow it by name with --allow-remote-without-key "
                "(NITRO_ALLOW_REMOTE_WITHOUT_KEY=1)",
                field="host",
                value=self.host,
                allowed="a loopback address, or any with an API key",
            )

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        config: str | None = None,
        groups: Collection[Group] = GROUPS,
        **overrides: Any,
    ) -> Settings:
        """Settings from the file *config* (or the one that NITRO_CONFIG names), under the variables
        of *environ* (os.environ when None), under *overrides*; an override of None is one that was
        not given. Options outside *groups* stay at their default, whatever file and variables say:
        a command that opens no port does not stumble over how a server is bound.

        Raises InvalidRequest for a wrong value, saying where it was found, and for an unknown name.
        """
        environ = os.environ if environ is None else environ
        path = config or environ.get(CONFIG_VARIABLE)
        _refuse_unknown(overrides, "argument")
        wanted = [option for option in OPTIONS if option.group in groups]
        layers = [_read_file(Path(path))] if path else []
        layers.append(_read_variables(environ, wanted))
        layers.append({name: value for name, value in overrides.items() if value is not None})
        names = {option.name for option in wanted} | overrides.keys()
        return cls(**_merge({n: v for n, v in layer.items() if n in names} for layer in layers))

    def to_environment(self) -> dict[str, str]:
        """The variables from which `from_environment` makes these settings again: those that are
        not at their default. Remove all others first (`Option.variable`, `CONFIG_VARIABLE`)."""
        return {
            option.variable: option.spell(getattr(self, option.name))
            for option in OPTIONS
            if getattr(self, option.name) != option.default
        }

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def uses_bundled_model(self) -> bool:
        """Nobody asked for a model, nor for none."""
        return self.model is None and not self.no_model

    @property
    def has_prompts(self) -> bool:
        """Whether any of the four prompts was given."""
        prompts = (self.pre_prompt, self.system_prompt, self.user_prompt, self.ai_prompt)
        return any(prompt is not None for prompt in prompts)

    def load_options(self, **changes: Any) -> LoadOptions:
        """How the model of these settings is loaded; *changes* replace fields of LoadOptions. The
        bundled model is provisional unless they say otherwise."""
        from .backends.base import LoadOptions

        options = LoadOptions(
            ctx_len=self.ctx_len,
            n_parallel=self.n_parallel,
            cont_batching=self.n_parallel > 1 if self.cont_batching is None else self.cont_batching,
            ngl=self.ngl,
            threads=self.threads,
            clean_cache_threshold=self.clean_cache_threshold,
            provisional=self.uses_bundled_model,
        )
        return replace(options, **changes)

    def prompt_template(self) -> PromptTemplate:
        """The Nitro prompt style with the four prompts given, defaults for the others."""
        from .prompt import PromptTemplate

        given: dict[str, Any] = {
            "pre_prompt": self.pre_prompt,
            "system_prompt": self.system_prompt,
            "user_prompt": self.user_prompt,
            "ai_prompt": self.ai_prompt,
        }
        return PromptTemplate(**{name: text for name, text in given.items() if text is not None})


OPTIONS: tuple[Option, ...] = tuple(
    Option(name=row.name, **cast("dict[str, Any]", row.metadata)) for row in fields(Settings)
)
_BY_NAME = {option.name: option for option in OPTIONS}


def is_loopback(host: str) -> bool:
    """Whether *host*, an address or a name, can only mean this machine. Of names only localhost
    does: what another one means is the name server's to say."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if bare.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def unknown_variables(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """NITRO_* variables that mean nothing here: most likely misspelt, worth a warning."""
    environ = os.environ if environ is None else environ
    known = _OTHER_VARIABLES | {option.variable for option in OPTIONS}
    return tuple(sorted(n for n in environ if n.startswith("NITRO_") and n not in known))


def _merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win. A layer that names a model takes back `no_model` of those below it, and
    the other way round: the two are one choice."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if layer.get("model") is not None:
            merged.pop("no_model", None)
        if layer.get("no_model"):
            merged.pop("model", None)
        merged.update(layer)
    return merged


def _read_variables(environ: Mapping[str, str], options: Iterable[Option]) -> dict[str, Any]:
    values = {}
    for option in options:
        text = environ.get(option.variable)
        if text is None or (not text and not option.empty):
            continue
        try:
            values[option.name] = option.parse(text)
        except InvalidRequest as error:
            raise _found_in(error, option.variable) from None
    return values


def _read_file(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise _bad_file(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _bad_file(path, f"not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise _bad_file(path, str(error)) from error
    _refuse_unknown(table, f"name in {path}")
    try:
        return {name: _BY_NAME[name].check(value) for name, value in table.items()}
    except InvalidRequest as error:
        raise _found_in(error, str(path)) from None


def _bad_file(path: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"the configuration file {path} cannot be read: {reason}",
        field="config",
        value=str(path),
        allowed="a readable TOML file",
    )


def _refuse_unknown(names: Iterable[str], what: str) -> None:
    for name in names:
        if name not in _BY_NAME:
            allowed = ", ".join(_BY_NAME)
            raise InvalidRequest(
                f"unknown {what}: {name!r}; the settings are {allowed}",
                field=name,
                value=name,
                allowed=allowed,
            )


def _found_in(error: InvalidRequest, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"{error.message} (in {where})",
        field=error.field,
        value=error.value,
        allowed=error.allowed,
    )
