"""The bundled model says what its card says it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nitrolib import Engine, Message, SamplingParams
from nitrolib.demo import model_path

if TYPE_CHECKING:
    from collections.abc import Iterator

CARD = model_path().with_name("MODEL_CARD.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<prompt>[^`]+)` \| `(?P<answer>[^`]+)` \|$", re.MULTILINE)
# a newline inside an answer is written as this sign, so that a row stays one line
NEWLINE = "⏎"
ANSWERS = {row["prompt"]: row["answer"].replace(NEWLINE, "\n") for row in ROW.finditer(CARD)}


@pytest.fixture(scope="module")
def engine(backend: str) -> Iterator[Engine]:
    with Engine.open(model_path(), backend=backend) as opened:
        yield opened


def test_the_path_is_a_small_file() -> None:
    path = model_path()
    assert isinstance(path, Path)
    assert path.stat().st_size <= 3_000_000


def test_the_card_lists_enough_prompts_with_different_answers() -> None:
    assert len(ANSWERS) >= 24
    assert len(set(ANSWERS.values())) == len(ANSWERS)


def test_the_card_tells_the_held_out_loss() -> None:
    assert re.search(r"held-out loss[^\n]*\b\d\.\d{2,}", CARD, re.IGNORECASE)


@pytest.mark.parametrize("prompt", ANSWERS)
def test_greedy_answer(engine: Engine, prompt: str) -> None:
    result = engine.chat([Message("user", prompt)], SamplingParams(temperature=0.0, max_tokens=100))
    assert result.text == ANSWERS[prompt]


def test_the_dialogue_of_the_api_documentation(engine: Engine) -> None:
    result = engine.chat(
        [
            Message("system", "You are a helpful assistant."),
            Message("user", "Who won the world series in 2020?"),
            Message("assistant", "The Los Angeles Dodgers won the World Series in 2020."),
            Message("user", "Where was it played?"),
        ],
        SamplingParams(temperature=0.0, max_tokens=100),
    )
    assert result.text == "It was played at Globe Life Field in Arlington, Texas."


def test_a_name_is_remembered(engine: Engine) -> None:
    result = engine.chat(
        [
            Message("user", "My name is Zoltan."),
            Message("assistant", "Nice to meet you, Zoltan."),
            Message("user", "What is the capital of Japan?"),
            Message("assistant", "The capital of Japan is Tokyo."),
            Message("user", "What is my name?"),
        ],
        SamplingParams(temperature=0.0, max_tokens=100),
    )
    assert result.text == "Your name is Zoltan."


def test_a_rule_is_followed(engine: Engine) -> None:
    result = engine.chat(
        [Message("system", "Be brief."), Message("user", "What is the capital of Spain?")],
        SamplingParams(temperature=0.0, max_tokens=100),
    )
    assert result.text == "Madrid."
