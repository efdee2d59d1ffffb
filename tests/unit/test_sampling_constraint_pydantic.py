"""Schemas that pydantic writes, as OpenAI clients send them, are enforced or refused by name."""

from __future__ import annotations

import enum
import json
from datetime import date, datetime, timedelta  # noqa: TC003  (read by pydantic)
from typing import Annotated, Any, Literal
from uuid import UUID  # noqa: TC003

import pytest
from pydantic import BaseModel, ConfigDict, Field
from support.random_answers import VOCABULARY, answer

from nitrolib.errors import InvalidRequest
from nitrolib.sampling.constraint import compile_source


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    explanation: str = Field(max_length=20)
    output: str


class Reasoning(BaseModel):
    """As in the structured-outputs guide."""

    model_config = ConfigDict(extra="forbid")
    steps: list[Step] = Field(max_length=2)
    final_answer: str


class Person(BaseModel):
    name: str = Field(min_length=1, max_length=12)
    age: int = Field(ge=0, le=150)
    height: float | None = Field(default=None, gt=0)
    colour: Colour = Colour.RED
    born: date
    seen: datetime | None = None
    key: UUID
    took: timedelta
    scores: dict[str, int] = Field(max_length=2)
    pair: tuple[int, str]
    mood: Literal["good", "bad", None]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    friend: Pet | None = None


class Pet(BaseModel):
    animal: Annotated[Cat | Dog, Field(discriminator="kind")]


class Event(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    participants: list[str] = Field(max_length=3)
    either: int | str | None


@pytest.mark.parametrize("model", [Reasoning, Person, Pet, Event])
def test_a_finished_answer_is_read_by_the_model(model: type[BaseModel]) -> None:
    schema = json.dumps(model.model_json_schema())
    compiled = compile_source("json_schema", schema, VOCABULARY)
    finished = 0
    for seed in range(12):
        found = answer(compiled, seed, limit=1500)
        if found.finished:
            model.model_validate_json(found.text)
            finished += 1
    assert finished > 3


class Unique(BaseModel):
    names: set[str]


class Raw(BaseModel):
    data: bytes


@pytest.mark.parametrize(
    ("model", "pointer"),
    [(Unique, "/properties/names/uniqueItems"), (Raw, "/properties/data/format")],
)
def test_what_is_not_enforced_is_named(model: Any, pointer: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_source("json_schema", json.dumps(model.model_json_schema()), VOCABULARY)
    assert caught.value.facts["pointer"] == pointer
