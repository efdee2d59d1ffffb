"""Train the SentencePiece vocabulary on the corpus: BPE with byte fallback, 2048 pieces.

python -m nitrolib.demo.training.tokenizer --out build/demo
"""

from __future__ import annotations

import argparse
import io
import string
from pathlib import Path
from typing import TYPE_CHECKING

import sentencepiece

from .corpus import dialogue, plain_text, render

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCAB_SIZE = 2048
DIALOGUES = 30_000


def sentences(count: int) -> Iterator[str]:
    """Lines of training text. Line starts carry a boundary mark: "USER" and "ASSISTANT" stand
    there without the leading space that SentencePiece would otherwise add to them."""
    for index in range(count):
        text = render(dialogue(f"train:{index}"))[0] + plain_text(f"train:{index}")
        # Rare characters must stay bytes: the pieces are for plain ASCII.
        ascii_text = text.encode("ascii", "ignore").decode()
        for line in ascii_text.splitlines():
            yield "\t" + line if line.startswith(("USER:", "ASSISTANT")) else line


def train(out: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(DIALOGUES),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        character_coverage=1.0,
        required_chars=string.ascii_letters + string.digits + string.punctuation,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        max_sentence_length=20_000,
        num_threads=2,
        minloglevel=1,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.model").write_bytes(model.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    train(parser.parse_args().out)
