"""Settings: every option of the server and the command, validated once.

The fields of `Settings` are the one table: type, default, range, help, environment variable and
command-line flag of every option come from there, so that none of them can drift.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidRequest
from .addresses import is_loopback
from .dialects import DEFAULT_DIALECTS, DIALECT_PORTS
from .folders import data_folder
from .keys import ApiKey, check_distinct, parse_keys, read_keys
from .options import GROUPS, Group, Kind, Option
from .sources import (
    CONFIG_VARIABLE,
    OTHER_VARIABLES,
    merge,
    read_file,
    read_variables,
    refuse_unknown,
)
from .values import lora_adapters, shares

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..backends.base import CacheType, LoadOptions, Pooling
    from ..prompt import PromptTemplate

__all__ = ["OPTIONS", "Settings", "unknown_variables"]

# As `backends.base` has them, which must not be imported for a --help; a test compares them.
CACHE_TYPES = ("f16", "q8_0", "q4_0")
POOLINGS = ("none", "mean", "cls", "last", "rank")
# As the package `limits` reads them.
_RATE = r"\s*[1-9]\d{0,8}\s*(/|per)\s*(\d{1,6}\s*)?(second|minute|hour|day)s?\s*"
_RATES = re.compile(rf"{_RATE}([;,]{_RATE})*", re.IGNORECASE)
SHARED_PORT = DIALECT_PORTS["nitro"]  # of several dialects together


def _option(
    kind: Kind,
    default: Any,
    help: str,  # noqa: A002 - the word argparse uses
    *,
    group: Group = "server",
    **more: Any,
) -> Any:
    row = {"kind": kind, "default": default, "help": help, "group": group, **more}
    row["optional"] = default is None
    return field(default=default, repr=not more.get("secret"), metadata=row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything `nitro serve` and the WSGI application can be told.

    Raises InvalidRequest, naming field, value and what is allowed, for a wrong value and for a
    combination that must not be: a model together with `no_model`, a bind that other machines can
    reach without an API key. A prompt that is None is the default of `PromptTemplate`; "" is an
    empty prompt.
    """

    dialects: tuple[str, ...] = _option(
        "list",
        DEFAULT_DIALECTS,
        "REST dialect to serve; the first that has a path answers there",
        metavar="NAME",
        choices=tuple(DIALECT_PORTS),
    )
    host: str = _option("text", "127.0.0.1", "address to listen on", metavar="ADDRESS")
    port: int | None = _option(
        "integer",
        None,
        f"port to listen on; 0 takes a free one (default: {SHARED_PORT}, or that of the one "
        "dialect served)",
        metavar="N",
        least=0,
        most=65535,
    )
    api_key: str | None = _option(
        "text",
        None,
        "key, or name:key, that clients must send as 'Authorization: Bearer KEY'; several are "
        "separated by commas (better given in the environment: other users can see arguments)",
        metavar="KEY",
        secret=True,
    )
    api_key_file: str | None = _option(
        "text", None, "file of such keys, one a line; # begins a comment", metavar="PATH"
    )
    allow_remote_without_key: bool = _option(
        "boolean", False, "allow an address that other machines can reach without an API key"
    )
    allow_hosts: tuple[str, ...] = _option(
        "list",
        (),
        "name by which this server may be called, besides loopback ones and those of "
        "--cors-origin; on an address that other machines can reach, any is unless one is given",
        metavar="NAME",
    )
    cors_origins: tuple[str, ...] = _option(
        "list",
        (),
        "web origin beyond loopback whose pages may use the server; * is any",
        metavar="ORIGIN",
    )
    allow_paths: tuple[str, ...] = _option(
        "list",
        (),
        "folder whose models clients may name by path, besides --models-dir, where other "
        "machines can reach the server; where none can, any folder may be",
        metavar="PATH",
    )
    trusted_proxies: int = _option(
        "integer",
        0,
        "proxies in front of the server whose X-Forwarded-For is believed",
        metavar="N",
        least=0,
        most=16,
    )
    rate_limit: str | None = _option(
        "text",
        None,
        "requests that each key, or each address without one, may send, such as 60/minute or "
        "5/second;60/minute (default: no limit)",
        metavar="N/UNIT",
    )
    strict_model: bool = _option(
        "boolean", False, "refuse a model that is not known by its name instead of ignoring that"
    )
    max_models: int = _option(
        "integer", 1, "models that may be loaded at once", metavar="N", least=1, most=64
    )
    model_idle_s: int | None = _option(
        "integer",
        None,
        "seconds after which a model that nobody uses is unloaded (default: never)",
        metavar="SECONDS",
        least=1,
    )
    downloads: bool = _option("boolean", True, "let clients download models")
    download_hosts: tuple[str, ...] = _option(
        "list",
        (),
        "host, besides those of Hugging Face, that models may be downloaded from; *.example.org is "
        "those below it, * any",
        metavar="HOST",
    )
    download_private: bool = _option(
        "boolean", False, "download from addresses of this machine and of private networks too"
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
    locallab_stream: str = _option(
        "text",
        "auto",
        "how LocalLab's chats are streamed: sse is plain text, dual has a line of JSON beside it, "
        "auto is dual for LocalLab's own client and sse for others; lines is plain text with "
        "true line breaks",
        choices=("auto", "sse", "dual", "lines"),
    )
    locallab_prompt: str = _option(
        "text",
        "auto",
        "what LocalLab's prompts are: chat is one message of a user, text is continued as it is, "
        "auto is chat where the model has a template",
        choices=("auto", "chat", "text"),
    )
    locallab_autoload: bool = _option(
        "boolean", True, "load a model that a LocalLab request names and that is not loaded"
    )
    locallab_rate: int = _option(
        "integer",
        60,
        "requests a minute that each client of LocalLab's routes may send; 0 is no limit",
        metavar="N",
        least=0,
    )
    locallab_burst: int = _option(
        "integer", 10, "how many of them may come at once", metavar="N", least=1
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
        "GGUF file to load, or the id of a model in the models folder (default: the bundled model)",
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
    n_batch: int | None = _option(
        "integer",
        None,
        "most tokens in one evaluation over all slots (default: 512)",
        group="model",
        metavar="N",
        least=1,
    )
    n_ubatch: int | None = _option(
        "integer",
        None,
        "most tokens that pass through the layers at once (default: --n-batch)",
        group="model",
        metavar="N",
        least=1,
    )
    flash_attention: bool | None = _option(
        "boolean",
        None,
        "flash attention (default: where the model and the machine allow it)",
        group="model",
    )
    cache_type_k: str = _option(
        "text", "f16", "how keys are kept", group="model", choices=CACHE_TYPES
    )
    cache_type_v: str = _option(
        "text",
        "f16",
        "how values are kept; a quantised type needs flash attention",
        group="model",
        choices=CACHE_TYPES,
    )
    shared_context: bool = _option(
        "boolean",
        False,
        "let each slot hold up to --ctx-len tokens, as long as all together do not need more",
        group="model",
    )
    main_gpu: int = _option(
        "integer", 0, "GPU that holds what is not split", group="model", metavar="N", least=0
    )
    tensor_split: str | None = _option(
        "text",
        None,
        "parts of the layers for each GPU, such as 3,1 (default: by free memory)",
        group="model",
        metavar="PARTS",
    )
    pooling: str | None = _option(
        "text",
        None,
        "how embeddings are made of their tokens (default: as the file says, else mean)",
        group="model",
        choices=POOLINGS,
    )
    loras: tuple[str, ...] = _option(
        "list", (), "LoRA adapter to load, with its strength", group="model", metavar="PATH[=SCALE]"
    )
    lookup: int = _option(
        "integer",
        0,
        "tokens to guess ahead from the text so far, to be checked in one evaluation; 0 is none",
        group="model",
        metavar="N",
        least=0,
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

    data_dir: str | None = _option(
        "text",
        None,
        "folder for what is kept (default: this user's own)",
        group="storage",
        metavar="PATH",
    )
    models_dir: str | None = _option(
        "text",
        None,
        "folder of the models, a folder each (default: models in --data-dir)",
        group="storage",
        metavar="PATH",
    )
    slots_dir: str | None = _option(
        "text",
        None,
        "folder in which clients of llama-server's routes may save what slots hold (default: they "
        "may not)",
        metavar="PATH",
    )
    database_url: str | None = _option(
        "text",
        None,
        "database of threads and answers, as SQLAlchemy writes it (default: SQLite, nitro.db in "
        "--data-dir)",
        group="storage",
        metavar="URL",
        secret=True,
    )

    def __post_init__(self) -> None:
        for option in OPTIONS:
            object.__setattr__(self, option.name, option.check(getattr(self, option.name)))
        shares(self.tensor_split)  # raises
        self._check_together()

    def _check_together(self) -> None:
        if self.model is not None and self.no_model:
            raise InvalidRequest(
                f"no_model and model {self.model!r} contradict each other",
                field="no_model",
                value=True,
                allowed="one of the two",
            )
        if not self.dialects:
            raise InvalidRequest(
                "dialects is empty: nothing would be served",
                field="dialects",
                value=(),
                allowed="one or more of " + ", ".join(DIALECT_PORTS),
            )
        if self.rate_limit is not None and not _RATES.fullmatch(self.rate_limit):
            raise InvalidRequest(
                f"rate_limit {self.rate_limit!r} cannot be read",
                field="rate_limit",
                value=self.rate_limit,
                allowed="limits such as 60/minute, several separated by semicolons",
            )
        if self.ctx_len < self.n_parallel:
            raise InvalidRequest(
                f"ctx_len {self.ctx_len} leaves no token for each of {self.n_parallel} slots",
                field="ctx_len",
                value=self.ctx_len,
                allowed=f"at least n_parallel ({self.n_parallel})",
            )
        if not (self.is_local or self.has_keys or self.allow_remote_without_key):
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
        refuse_unknown(overrides, _BY_NAME, "argument")
        wanted = [option for option in OPTIONS if option.group in groups]
        layers = [read_file(Path(path), _BY_NAME)] if path else []
        layers.append(read_variables(environ, wanted))
        layers.append({name: value for name, value in overrides.items() if value is not None})
        names = {option.name for option in wanted} | overrides.keys()
        return cls(**merge({n: v for n, v in layer.items() if n in names} for layer in layers))

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
    def listen_port(self) -> int:
        """The port asked for, else the one that clients of what is served expect."""
        if self.port is not None:
            return self.port
        return DIALECT_PORTS[self.dialects[0]] if len(self.dialects) == 1 else SHARED_PORT

    @property
    def has_keys(self) -> bool:
        """Whether clients need an API key."""
        return bool(self.api_key or self.api_key_file)

    def api_keys(self) -> tuple[ApiKey, ...]:
        """The keys of clients: those given, then those of the file, which is read. Raises
        InvalidRequest for a file or key that cannot be used."""
        parts = self.api_key.split(",") if self.api_key else []
        keys = parse_keys((part.strip() for part in parts), "api_key")
        if self.api_key_file is None:
            return keys
        return check_distinct((*keys, *read_keys(self.api_key_file)), self.api_key_file)

    @property
    def data_folder(self) -> Path:
        """The folder for what is kept."""
        return data_folder() if self.data_dir is None else Path(self.data_dir)

    @property
    def models_folder(self) -> Path:
        """The folder of the models, a folder each."""
        return self.data_folder / "models" if self.models_dir is None else Path(self.models_dir)

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
        from ..backends.base import LoadOptions

        options = LoadOptions(
            ctx_len=self.ctx_len,
            n_parallel=self.n_parallel,
            cont_batching=self.n_parallel > 1 if self.cont_batching is None else self.cont_batching,
            ngl=self.ngl,
            threads=self.threads,
            n_batch=self.n_batch,
            n_ubatch=self.n_ubatch,
            flash_attention=self.flash_attention,
            cache_type_k=cast("CacheType", self.cache_type_k),
            cache_type_v=cast("CacheType", self.cache_type_v),
            shared_context=self.shared_context,
            main_gpu=self.main_gpu,
            tensor_split=shares(self.tensor_split),
            pooling=cast("Pooling | None", self.pooling),
            lora=lora_adapters(self.loras),
            lookup=self.lookup,
            clean_cache_threshold=self.clean_cache_threshold,
            provisional=self.uses_bundled_model,
        )
        return replace(options, **changes)

    def prompt_template(self) -> PromptTemplate:
        """The Nitro prompt style with the four prompts given, defaults for the others."""
        from ..prompt import PromptTemplate

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


def unknown_variables(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """NITRO_* variables that mean nothing here: most likely misspelt, worth a warning."""
    environ = os.environ if environ is None else environ
    known = OTHER_VARIABLES | {option.variable for option in OPTIONS}
    return tuple(sorted(n for n in environ if n.startswith("NITRO_") and n not in known))
