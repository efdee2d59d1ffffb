"""langchain-openai and litellm, unmodified, over gunicorn and a real model: chats, streams, texts
and vectors, on the port that the dialects share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.models import chat_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = "Where do cats sleep?"
KEY = "sk-local"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    with serve(
        model=chat_model(folder),
        data_dir=folder / "data",
        api_key=KEY,
        n_parallel=2,
        clean_cache_threshold=0,
    ) as running:
        yield running


# ---- langchain-openai --------------------------------------------------------------------------


@pytest.fixture
def chat(server: Server) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model="any",
        base_url=f"{server.url}/v1",
        api_key=KEY,  # type: ignore[arg-type]
        max_retries=0,
        seed=3,
        max_tokens=24,  # type: ignore[call-arg]
        temperature=0.7,
    )


def test_langchain_chats(chat: Any) -> None:
    answer = chat.invoke([("system", "Be brief."), ("human", QUESTION)])
    assert answer.content
    assert answer.usage_metadata["output_tokens"] <= 24
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


def test_langchain_streams_the_same_answer(chat: Any) -> None:
    whole = chat.invoke(QUESTION).content
    chunks = list(chat.stream(QUESTION, stream_usage=True))
    assert len(chunks) > 1
    assert "".join(chunk.content for chunk in chunks) == whole

    async def read() -> str:
        return "".join([chunk.content async for chunk in chat.astream(QUESTION)])

    assert asyncio.run(read()) == whole


def test_langchain_gets_an_object(chat: Any) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        tame: bool

    made = chat.with_structured_output(Answer, method="json_schema").invoke("Is a cat tame?")
    assert isinstance(made, Answer)


def test_langchain_speaks_the_responses_api(server: Server) -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        model="any",
        base_url=f"{server.url}/v1",
        api_key=KEY,  # type: ignore[arg-type]
        max_retries=0,
        max_tokens=24,  # type: ignore[call-arg]
        temperature=0,
        use_responses_api=True,
    )
    whole = chat.invoke(QUESTION)
    assert whole.text
    assert "".join(chunk.text for chunk in chat.stream(QUESTION)) == whole.text


def test_langchain_completes_and_embeds(server: Server) -> None:
    from langchain_openai import OpenAI, OpenAIEmbeddings

    where: Any = {"base_url": f"{server.url}/v1", "api_key": KEY, "model": "any"}
    texts = OpenAI(**where, max_retries=0, max_tokens=8, temperature=0)
    assert texts.invoke("Once upon a time")
    # Without the check it sends texts, not ids of another tokenizer.
    vectors = OpenAIEmbeddings(**where, check_embedding_ctx_length=False)
    one, other = vectors.embed_documents(["cats", "dogs"])
    assert len(one) == len(other) > 8


# ---- litellm -----------------------------------------------------------------------------------


@pytest.fixture
def ask(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    import litellm

    def completion(**fields: Any) -> Any:
        return litellm.completion(
            model="openai/any",
            api_base=f"{server.url}/v1",
            api_key=KEY,
            messages=[{"role": "user", "content": QUESTION}],
            **{"max_tokens": 24, "temperature": 0.7, "seed": 3, **fields},
        )

    return completion


def test_litellm_chats(ask: Any) -> None:
    answer = ask()
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 24


# A warning of pydantic about a type of litellm's own.
@pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning")
def test_litellm_streams_the_same_answer(ask: Any) -> None:
    whole = ask().choices[0].message.content
    chunks = list(ask(stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def test_litellm_maps_errors_to_its_own(ask: Any) -> None:
    import litellm

    with pytest.raises(litellm.BadRequestError, match="temperature"):
        ask(temperature=3)
