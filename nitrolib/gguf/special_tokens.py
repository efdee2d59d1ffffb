"""Which tokens of a vocabulary begin, end, part and steer texts, and what is put around a text: as
the file says, and where it is silent as llama.cpp has it.

Source: llama.cpp as vendored in llama-cpp-python 0.3.36, src/llama-vocab.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .reader import GGUFFile

__all__ = ["Habits", "SpecialIds"]

# Token types of tokenizer.ggml.token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# Kind of tokenizer -> what its special tokens are where the file names none.
_DEFAULT_IDS = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102},
    "gpt2": {"bos": 11, "eos": 11},
    "t5": {"eos": 1, "unknown": 2},
}
# The key of the separator is misspelled in the format itself.
_NAMES = ("bos", "eos", "eot", "eom", "unknown", "seperator", "fim_pad", "fim_rep", "fim_sep")

# Texts that are control tokens and end a generation, whatever type the file gives them.
_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
)  # fmt: skip
# Texts that are control tokens where the file names none for their purpose; one of each, the first.
_BY_TEXT = {
    "fim_pre": ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>",
                "<PRE>", "\u2581<PRE>", "<|code_prefix|>", "<|prefix|>"),
    "fim_suf": ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>",
                "<SUF>", "\u2581<SUF>", "<|code_suffix|>", "<|suffix|>"),
    "fim_mid": ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>",
                "<MID>", "\u2581<MID>", "<|code_middle|>", "<|middle|>"),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}  # fmt: skip
_OLD_NAMES = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
# Tokens of gpt-oss whose texts are part of what it writes.
_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
_ALL_TEXTS = frozenset(
    text.encode()
    for texts in (_ENDS, _SHOWN, *_BY_TEXT.values(), ("<|plamo:eos|>",))
    for text in texts
)

_PRE_WITH_BOS = frozenset({
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    "jina-v5-nano", "tekken", "chameleon",
})  # fmt: skip
_PRE_WITHOUT_DEFAULT_BOS = frozenset({"chatglm-bpe", "glm4", "glm5"})
_PRE_WITH_SEP = frozenset({"jina-v1-en", "jina-v2-code", "roberta-bpe"})
_PRE_GEMMA_4 = frozenset({"gemma4", "granite-embed-multi-311m"})
_PRE_WITH_SPACES = _PRE_GEMMA_4 | {"sarvam-moe"}


@dataclass(frozen=True, slots=True)
class Habits:
    """What is put around a text: BOS, EOS, a separator, a space before it; and whether U+2581
    stands for a space in the tokens."""

    add_bos: bool
    add_eos: bool
    add_sep: bool
    add_space_prefix: bool
    escaped_spaces: bool

    @classmethod
    def of(cls, file: GGUFFile, model: str) -> Habits:
        """Of a kind of tokenizer in a file."""
        pre = _pre(file, model)

        def said(name: str, otherwise: bool) -> bool:
            flag = file.metadata.flag(f"tokenizer.ggml.{name}")
            return otherwise if flag is None else flag

        byte_level = model == "gpt2"
        gemma_4 = model == "gemma4" or (byte_level and pre in _PRE_GEMMA_4)
        with_bos = model in ("llama", "bert") or (byte_level and pre in _PRE_WITH_BOS)
        with_sep = model == "bert" or (byte_level and pre in _PRE_WITH_SEP)
        return cls(
            add_bos=said("add_bos_token", with_bos) or gemma_4,
            add_eos=said("add_eos_token", model == "t5"),
            add_sep=said("add_sep_token", with_sep),
            add_space_prefix=said("add_space_prefix", model == "llama"),
            escaped_spaces=not byte_level or pre in _PRE_WITH_SPACES,
        )


class SpecialIds:
    """The special tokens of a vocabulary. `ids` are those that the file or a default names, and
    `ends` all that end a generation; `types` are the types of all tokens as llama.cpp corrects
    them by their texts."""

    def __init__(
        self, file: GGUFFile, model: str, texts: Sequence[bytes], types: NDArray[np.int64]
    ) -> None:
        self.ids = _named_ids(file, model, len(texts))
        self.types = types.copy()
        known = {text.decode(): token for token, text in enumerate(texts) if text in _ALL_TEXTS}
        self._mark_by_text(file, known)
        self.ends = {
            token
            for name in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
            if (token := self.ids[name]) is not None
        }
        self._mark_ends(known)
        for text in _SHOWN:
            if text in known:
                self.types[known[text]] = USER_DEFINED
        self._unmark(known)

    def _mark_by_text(self, file: GGUFFile, known: Mapping[str, int]) -> None:
        for name, texts in _BY_TEXT.items():
            if self.ids.get(name) is not None:
                continue
            keys = [f"tokenizer.ggml.{one}_token_id" for one in (name, _OLD_NAMES.get(name, name))]
            if any(key in file.metadata for key in keys):
                continue
            token = next((known[text] for text in texts if text in known), None)
            if token is not None:
                self.types[token] = CONTROL
                self.ids[name] = token

    def _mark_ends(self, known: Mapping[str, int]) -> None:
        for text in _ENDS:
            if text in known:
                self.ends.add(known[text])
                self.types[known[text]] = CONTROL

    def _unmark(self, known: Mapping[str, int]) -> None:
        """What ends a generation in most models is text in these."""
        ends = {text for text, token in known.items() if token in self.ends}
        calls = bool(ends & {"<|call|>", "<|calls|>"})
        if "<|end|>" in ends and calls and ends & {"<|return|>", "<|flush|>"}:
            self.ends.discard(known["<|end|>"])
            self.types[known["<|end|>"]] = USER_DEFINED
        if "</s>" in ends and ends & {"<|tool_response>", "<|plamo:eos|>"}:
            self.ends.discard(known["</s>"])
            self.types[known["</s>"]] = NORMAL


def _pre(file: GGUFFile, model: str) -> str:
    return "gemma4" if model == "gemma4" else file.metadata.text("tokenizer.ggml.pre") or ""


def _named_ids(file: GGUFFile, model: str, n_vocab: int) -> dict[str, int | None]:
    defaults = dict(_DEFAULT_IDS.get(model, {}))
    if _pre(file, model) in _PRE_WITHOUT_DEFAULT_BOS:
        defaults.pop("bos", None)
    ids: dict[str, int | None] = {}
    for name in _NAMES:
        said = file.metadata.integer(f"tokenizer.ggml.{name}_token_id")
        default = defaults.get(name)
        token = default if said is None or not 0 <= said < n_vocab else said
        ids[name] = token if token is not None and token < n_vocab else None
    return ids
