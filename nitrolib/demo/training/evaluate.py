"""Count how often the checkpoint's greedy answer is exactly the one that was taught.

python -m nitrolib.demo.training.evaluate --out build/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import sentencepiece
import torch

from .corpus import KINDS, Dialogue, Turn, dialogue, render
from .data import BOS, NO_LOSS, encode
from .facts import GROUPS
from .model import Llama
from .small_talk import SEED_PRE_PROMPT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HELD_OUT_DIALOGUES = 2000
ROWS = 64


def facts() -> Iterator[Turn]:
    """Every form of every question, as typed by a careful user."""
    for _, group in GROUPS:
        for known in group:
            yield from (Turn(question, known.answer) for question in known.questions)


def sums(sign: str) -> Iterator[Turn]:
    numbers = range(11 if sign in "*/" else 21)
    for a in numbers:
        for b in numbers:
            if sign == "/":
                if b:
                    yield Turn(f"What is {a * b} / {b}?", f"{a * b} / {b} = {a}.")
            else:
                result = {"+": a + b, "-": a - b, "*": a * b}[sign]
                yield Turn(f"What is {a} {sign} {b}?", f"{a} {sign} {b} = {result}.")


def held_out() -> Iterator[Dialogue]:
    return (dialogue(f"held-out:{index}") for index in range(HELD_OUT_DIALOGUES))


class Judge:
    def __init__(self, out: Path) -> None:
        checkpoint = torch.load(out / "checkpoint.pt", weights_only=False)
        self.tokenizer = sentencepiece.SentencePieceProcessor(str(out / "tokenizer.model"))
        self.model = Llama(checkpoint["config"])
        self.model.load_state_dict(checkpoint["average"])

    @torch.no_grad()
    def right(self, dialogues: Iterable[Dialogue]) -> list[list[bool]]:
        """For each dialogue, whether each answer would come out of greedy decoding.

        Where the most likely token equals the target all along the answer, greedy decoding takes
        that very path; so one pass over the taught text is enough.
        """
        context = self.model.config.context_length
        pairs = [encode(self.tokenizer, *render(d)) for d in dialogues]
        order = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]))
        results: list[list[bool]] = [[] for _ in pairs]
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            width = min(context, len(pairs[rows[-1]][0]))
            tokens = torch.full((len(rows), width), BOS)
            for row, index in enumerate(rows):
                tokens[row, : len(pairs[index][0])] = torch.tensor(pairs[index][0][:width])
            best = self.model.logits(self.model(tokens)).argmax(-1).tolist()
            for row, index in enumerate(rows):
                results[index] = _by_answer(best[row], pairs[index][1][:width])
        return results


def _by_answer(best: list[int], targets: list[int]) -> list[bool]:
    """Split *targets* at the gaps between answers; a gap is a run of NO_LOSS."""
    results: list[bool] = []
    inside = False
    for guess, target in zip(best, targets, strict=False):
        if target == NO_LOSS:
            inside = False
        elif not inside:
            inside = True
            results.append(guess == target)
        else:
            results[-1] &= guess == target
    return results


def report(title: str, results: list[bool]) -> None:
    print(f"{title:28} {sum(results):5} of {len(results):5} = {sum(results) / len(results):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    judge = Judge(parser.parse_args().out)

    def single(turns: Iterable[Turn]) -> list[bool]:
        alone = (Dialogue(SEED_PRE_PROMPT, (), (turn,)) for turn in turns)
        return [right for result in judge.right(alone) for right in result]

    report("facts, every form", single(facts()))
    for sign in "+-*/":
        report(f"sums with {sign}", single(sums(sign)))
    by_kind: dict[str, list[bool]] = {kind.__name__: [] for _, kind in KINDS}
    talks = list(held_out())
    for talk, results in zip(talks, judge.right(talks), strict=True):
        asked = [turn for turn in talk.turns if turn.user is not None]
        for turn, right in zip(asked, results, strict=False):
            by_kind.setdefault(turn.kind or "opening", []).append(right)
    # A story has no one right text: it is drawn from the grammar.
    del by_kind["tale"]
    for kind, results in by_kind.items():
        report(f"held-out {kind}", results)


if __name__ == "__main__":
    main()
