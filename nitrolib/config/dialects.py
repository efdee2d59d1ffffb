"""The REST dialects by name, and the port that each is known to live on."""

from __future__ import annotations

__all__ = ["DEFAULT_DIALECTS", "DIALECT_PORTS"]

DIALECT_PORTS = {
    "nitro": 3928,
    "openai": 8080,
    "jan": 1337,
    "locallab": 8000,
    "llama-server": 8080,
}
# Those that share a port when nothing is said. LocalLab has a /health and limits of its own.
DEFAULT_DIALECTS = ("nitro", "openai", "jan", "llama-server")
