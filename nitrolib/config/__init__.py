"""Settings of the server and the command, from a file < environment < arguments, validated once."""

from __future__ import annotations

from .addresses import is_loopback
from .dialects import DEFAULT_DIALECTS, DIALECT_PORTS
from .folders import data_folder
from .keys import ApiKey
from .options import GROUPS, Group, Option
from .settings import OPTIONS, Settings, unknown_variables
from .sources import CONFIG_VARIABLE

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_DIALECTS",
    "DIALECT_PORTS",
    "GROUPS",
    "OPTIONS",
    "ApiKey",
    "Group",
    "Option",
    "Settings",
    "data_folder",
    "is_loopback",
    "unknown_variables",
]
