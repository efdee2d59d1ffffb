"""The command line in terms of the settings table: flags are made from it, never written twice."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from ..config import GROUPS, OPTIONS, Group, Option, Settings
from ..errors import InvalidRequest
from . import console

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ..sampling import SamplingParams

    Subparsers = argparse._SubParsersAction["Parser"]

__all__ = [
    "MODEL",
    "MODEL_AND_PROMPT",
    "STORAGE",
    "Parser",
    "add_sampling_flags",
    "add_settings_flags",
    "sampling_params",
    "settings_from",
    "whole_number",
]

# What the commands that open no port can be told.
MODEL: tuple[Group, ...] = ("model",)
MODEL_AND_PROMPT: tuple[Group, ...] = ("model", "prompt")
# What those that look into the models folder can be told.
STORAGE: tuple[Group, ...] = ("storage",)

_TITLES: dict[Group, str] = {
    "server": "web server",
    "model": "model",
    "prompt": "prompt",
    "storage": "storage",
}

# Fields of SamplingParams that are worth a flag: type, metavar, what it is for.
_SAMPLING: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "temperature": (float, "T", "randomness; 0 always takes the likeliest token"),
    "top_k": (int, "K", "only the K likeliest tokens; 0 is all"),
    "top_p": (float, "P", "only the likeliest tokens that together have this probability"),
    "min_p": (float, "P", "only tokens at least this likely, relative to the likeliest"),
    "repeat_penalty": (float, "X", "penalty on tokens that came lately; 1 is none"),
    "seed": (int, "N", "seed of the random numbers; -1 takes a new one every time"),
    "max_tokens": (int, "N", "end the answer after so many tokens"),
}


class Parser(argparse.ArgumentParser):
    """argparse with errors in the command's own form: one line, then where to look."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)  # an abbreviation breaks when a flag is added
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        console.complain(message)
        print(f"Try '{self.prog} --help'.", file=sys.stderr)
        raise SystemExit(2)


def add_settings_flags(
    parser: argparse.ArgumentParser,
    groups: Collection[Group] = GROUPS,
    *,
    without: Collection[str] = (),
) -> None:
    """The flags of every setting in *groups*, and --config for a file of them."""
    parser.add_argument(
        "--config", metavar="PATH", help="TOML file of settings (also NITRO_CONFIG)"
    )
    for name in GROUPS:
        if name in groups:
            section = parser.add_argument_group(_TITLES[name])
            for option in OPTIONS:
                if option.group == name and option.name not in without:
                    _add_flag(section, option)


def settings_from(args: argparse.Namespace, groups: Collection[Group] = GROUPS) -> Settings:
    """Settings from file, environment and the flags that `add_settings_flags` made."""
    given = {o.name: getattr(args, o.name, None) for o in OPTIONS if o.group in groups}
    return Settings.from_environment(config=args.config, groups=groups, **given)


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """How the answer is sampled and where it ends."""
    section = parser.add_argument_group("sampling")
    heat = section.add_mutually_exclusive_group()
    heat.add_argument(
        "--greedy", action="store_true", help="always the likeliest token, as with temperature 0"
    )
    for name, (kind, metavar, purpose) in _SAMPLING.items():
        target = heat if name == "temperature" else section
        flag = "--" + name.replace("_", "-")
        target.add_argument(flag, type=kind, metavar=metavar, help=purpose)
    section.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help="end the answer where this text comes up (may be given several times)",
    )


def sampling_params(
    args: argparse.Namespace, told: Mapping[str, Any] | None = None
) -> SamplingParams:
    """SamplingParams from the flags given, below them what the model's own file *told*, below that
    its defaults."""
    from ..sampling import SamplingParams

    given = dict(told or {})
    given |= {name: getattr(args, name) for name in _SAMPLING if getattr(args, name) is not None}
    if args.greedy:
        given["temperature"] = 0.0
    if args.stop:
        given["stop"] = tuple(args.stop)
    return SamplingParams(**given)


def whole_number(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least *least*."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number, {least} or more, got {text!r}"
            )
        return number

    return parse


def _add_flag(section: argparse._ArgumentGroup, option: Option) -> None:
    purpose = option.help
    if not option.optional and option.default not in (False, ()):
        default = option.spell(option.default) if option.kind == "list" else option.default
        purpose += f" (default: {default})"
    # None stands for "not given": file and environment may still say something.
    shared: dict[str, Any] = {"dest": option.name, "default": None, "help": purpose}
    if option.name.startswith("no_"):
        section.add_argument(option.flag, action="store_const", const=True, **shared)
    elif option.kind == "list":
        # Given several times, or once with commas.
        section.add_argument(
            option.flag, action="extend", type=_typed(option), metavar=option.metavar, **shared
        )
    elif option.kind == "boolean":
        section.add_argument(option.flag, action=argparse.BooleanOptionalAction, **shared)
    elif option.choices:
        section.add_argument(option.flag, choices=option.choices, **shared)
    else:
        section.add_argument(option.flag, type=_typed(option), metavar=option.metavar, **shared)


def _typed(option: Option) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return option.parse(text)
        except InvalidRequest as error:
            raise argparse.ArgumentTypeError(error.message) from None

    return parse
