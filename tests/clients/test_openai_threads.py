"""The unmodified OpenAI client uses threads, assistants and runs, with a real model behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from openai import OpenAI
from support.models import chat_model
from support.server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

# OpenAI's own service moves on to responses; its clients still have these calls.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


@pytest.fixture(scope="module", params=["jan", "nitro,openai,jan,llama-server"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("threads")
    with (
        serve(model=chat_model(folder), dialects=request.param, data_dir=folder / "data") as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def test_a_conversation_through_a_thread(client: OpenAI) -> None:
    assistant = client.beta.assistants.create(
        model=client.models.list().data[0].id, name="Helper", instructions="Be kind."
    )
    thread = client.beta.threads.create(metadata={"topic": "cats"})
    assert client.beta.threads.retrieve(thread.id).metadata == {"topic": "cats"}
    first = client.beta.threads.messages.create(thread.id, role="user", content="Hello")
    run = client.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id, poll_interval_ms=20, temperature=0
    )
    assert run.status == "completed"
    assert run.usage is not None
    assert run.usage.total_tokens == run.usage.prompt_tokens + run.usage.completion_tokens
    assert run.instructions == "Be kind."
    newest = client.beta.threads.messages.list(thread.id).data
    assert [one.role for one in newest] == ["assistant", "user"]
    answer = newest[0].content[0]
    assert answer.type == "text"
    assert answer.text.value
    assert newest[0].run_id == run.id
    assert newest[1].id == first.id
    mine = client.beta.threads.messages.list(thread.id, run_id=run.id).data
    assert [one.id for one in mine] == [newest[0].id]
    assert [one.id for one in client.beta.threads.runs.list(thread.id)] == [run.id]
    assert client.beta.threads.delete(thread.id).deleted
    assert client.beta.assistants.delete(assistant.id).deleted


def test_a_run_is_streamed(client: OpenAI) -> None:
    thread = client.beta.threads.create(messages=[{"role": "user", "content": "Hello"}])
    with client.beta.threads.runs.stream(thread_id=thread.id, assistant_id="jan") as stream:
        text = "".join(stream.text_deltas)
        message = stream.get_final_messages()[0]
        run = stream.get_final_run()
    assert run.status == "completed"
    part = message.content[0]
    assert part.type == "text"
    assert part.text.value == text != ""
    assert client.beta.threads.messages.retrieve(message.id, thread_id=thread.id) == message


def test_the_client_pages_through_all_messages(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    ids = [
        client.beta.threads.messages.create(thread.id, role="user", content=str(number)).id
        for number in range(7)
    ]
    listed = client.beta.threads.messages.list(thread.id, limit=3, order="asc")
    assert [one.id for one in listed] == ids  # the client asks for one page after another
    back = client.beta.threads.messages.list(thread.id, limit=2, order="asc", before=ids[5])
    assert [one.id for one in back.data] == ids[3:5]


def test_a_thread_and_its_run_are_made_at_once(client: OpenAI) -> None:
    run = client.beta.threads.create_and_run_poll(
        assistant_id="jan",
        thread={"messages": [{"role": "user", "content": "Hello"}]},
        poll_interval_ms=20,
    )
    assert run.status == "completed"


def test_errors_have_their_classes(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.beta.threads.retrieve("thread_gone")
    assert missing.value.code == "not_found"
    with pytest.raises(openai.PermissionDeniedError):
        client.beta.assistants.delete("jan")
    thread = client.beta.threads.create()
    with pytest.raises(openai.BadRequestError) as wrong:
        client.beta.threads.runs.create(thread.id, assistant_id="jan", max_prompt_tokens=5)
    assert wrong.value.param == "max_prompt_tokens"
