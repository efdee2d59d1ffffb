"""Facts: what the header of a model's file tells about it, read once for each state of the file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ..gguf import FileIdentity, GGUFFile, ModelInfo

__all__ = ["Facts", "FactsCache"]

# llama.cpp's llama_ftype, which general.file_type holds: the name a quantization goes by, where
# ModelInfo.quantization is the type of most of its tensors.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file's header says, beyond `info`: texts are "" and `tags` is () where it is silent.

    quantization: such as "Q4_K_M". size_label: the parameter count in a word, such as "7B".
    """

    info: ModelInfo
    description: str
    author: str
    license: str
    tags: tuple[str, ...]
    quantization: str
    size_label: str

    @classmethod
    def of(cls, file: GGUFFile) -> Facts:
        """Raises ModelFileError for keys of a wrong type."""
        from ..gguf import ModelInfo

        info = ModelInfo.from_gguf(file)
        text, key = file.metadata.text, "general.tags"
        file_type = file.metadata.integer("general.file_type")
        return cls(
            info=info,
            description=text("general.description") or "",
            author=text("general.author") or "",
            license=text("general.license") or "",
            tags=tuple(file.metadata.strings(key)) if key in file.metadata else (),
            quantization=_FILE_TYPES.get(-1 if file_type is None else file_type, info.quantization),
            size_label=text("general.size_label") or _size_label(info.n_params),
        )


class FactsCache:
    """Facts by path and state of the file; the most recently used are kept. Safe to use from any
    thread."""

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Path, FileIdentity], Facts] = OrderedDict()

    def get(self, path: Path) -> Facts:
        """Raises ModelFileError for a file that is no sound GGUF file."""
        from ..gguf import FileIdentity, open_gguf
        from ..gguf.source import fault

        try:
            key = path, FileIdentity.of(str(path))
        except OSError as error:
            raise fault(str(path), f"it cannot be read: {error.strerror}") from error
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
        if found is None:
            file = open_gguf(path)
            found = Facts.of(file)
            self._keep((path, file.identity), found)
        return found

    def _keep(self, key: tuple[Path, FileIdentity], found: Facts) -> None:
        with self._lock:
            self._known[key] = found
            while len(self._known) > self._size:
                self._known.popitem(last=False)


def _size_label(n_params: int) -> str:
    """As llama.cpp's converter rounds: 2.6M, 1.1B, 7B."""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if n_params >= unit:
            count = n_params / unit
            shown = f"{count:.0f}" if count >= 10 else f"{count:.1f}".removesuffix(".0")
            return shown + letter
    return f"{n_params // 1000}K" if n_params else ""
