"""What the Jan dialect shows of what is stored: threads, messages, assistants, runs, and lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import request

from nitrolib.validation import schema

from .. import bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nitrolib.store import Assistant, Message, MessageFile, Page, Run, Thread

__all__ = [
    "assistant_json",
    "deleted",
    "file_json",
    "ignore_parameters",
    "is_openai_client",
    "list_json",
    "message_json",
    "page_query",
    "run_json",
    "thread_json",
]

ANY_MODEL = "*"


def is_openai_client() -> bool:
    """Whether the current request comes from one of OpenAI's clients, which name their API."""
    return "OpenAI-Beta" in request.headers


def page_query(name: str = "PageQuery") -> dict[str, Any]:
    """Which part of a list the current request wants: the keywords of a store's `list`. What an
    OpenAI client does not say is as OpenAI has it, else it is Jan's: all, oldest first."""
    query = bodies.read_query("jan", name).fields
    usual = {"limit": 20, "order": "desc"} if is_openai_client() else {"order": "asc"}
    return {"limit": None, **usual, **query}


def ignore_parameters(given: Mapping[str, Any] | None, place: str = "parameters") -> None:
    """Report the parameters at *place* in the body that mean nothing in a chat."""
    names = schema("jan", "Parameters").unknown(given or {})
    bodies.ignore(*(f"{place}/{name}" for name in names))


def list_json(page: Page[Any], show: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """A list object with the records of *page*."""
    return {
        "object": "list",
        "data": [show(record) for record in page.data],
        "first_id": page.first_id or "",
        "last_id": page.last_id or "",
        "has_more": page.has_more,
    }


def deleted(kind: str, given_id: str) -> dict[str, Any]:
    """The answer to a deletion."""
    return {"id": given_id, "object": f"{kind}.deleted", "deleted": True}


def thread_json(thread: Thread, message_ids: Sequence[str]) -> dict[str, Any]:
    """A thread in the words of all of Jan's versions, and OpenAI's."""
    return {
        "id": thread.id,
        "object": "thread",
        "created": thread.created_at,
        "created_at": thread.created_at,
        "title": thread.title,
        "summary": thread.title,
        "assistants": [str(one.get("assistant_id", "")) for one in thread.assistants],
        "assistants_info": list(thread.assistants),
        "model_id": thread.model_id or "",
        "settings": thread.settings,
        "parameters": thread.parameters,
        "messages": list(message_ids),
        "metadata": thread.metadata,
        "tool_resources": None,
    }


def message_json(message: Message) -> dict[str, Any]:
    """A message; `status` and what follows it are OpenAI's."""
    whole = message.status == "completed"
    return {
        "id": message.id,
        "object": "thread.message",
        "created_at": message.created_at,
        "thread_id": message.thread_id,
        "role": message.role,
        "content": list(message.content),
        "file_ids": list(message.file_ids),
        "assistant_id": message.assistant_id,
        "run_id": message.run_id,
        "metadata": message.metadata,
        "status": message.status,
        "completed_at": message.completed_at,
        "incomplete_at": None if whole else message.completed_at,
        "incomplete_details": None if whole else {"reason": "max_tokens"},
        "attachments": [{"file_id": file_id, "tools": []} for file_id in message.file_ids],
    }


def file_json(file: MessageFile) -> dict[str, Any]:
    """That a file belongs to a message."""
    return {
        "id": file.id,
        "object": "thread.message.file",
        "created_at": file.created_at,
        "message_id": file.message_id,
    }


def assistant_json(assistant: Assistant) -> dict[str, Any]:
    """An assistant; from `model` on the keys are OpenAI's."""
    parameters = assistant.parameters
    return {
        "id": assistant.id,
        "object": "assistant",
        "version": 1,
        "created_at": assistant.created_at,
        "name": assistant.name,
        "description": assistant.description,
        "avatar": assistant.avatar,
        "models": list(assistant.models),
        "instructions": assistant.instructions,
        "events": assistant.events,
        "parameters": parameters,
        "metadata": assistant.metadata,
        "model": assistant.model or ANY_MODEL,
        "tools": list(assistant.tools),
        "tool_resources": None,
        "temperature": parameters.get("temperature"),
        "top_p": parameters.get("top_p"),
        "response_format": parameters.get("response_format", "auto"),
    }


def run_json(run: Run) -> dict[str, Any]:
    """A run, as OpenAI shows it."""
    asked = run.parameters
    limit = asked.get("max_completion_tokens", asked.get("max_tokens"))
    shown = {
        "id": run.id,
        "object": "thread.run",
        "created_at": run.created_at,
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
        "status": run.status,
        "model": run.model,
        "instructions": run.instructions,
        "started_at": run.started_at,
        "expires_at": run.expires_at,
        "cancelled_at": run.cancelled_at,
        "failed_at": run.failed_at,
        "completed_at": run.completed_at,
        "required_action": None,
        "last_error": run.last_error,
        "incomplete_details": run.incomplete_details,
        "usage": run.usage,
        "metadata": run.metadata,
        "temperature": asked.get("temperature"),
        "top_p": asked.get("top_p"),
        "max_prompt_tokens": None,
        "max_completion_tokens": None if limit == -1 else limit,
        "truncation_strategy": asked.get(
            "truncation_strategy", {"type": "auto", "last_messages": None}
        ),
        "response_format": asked.get("response_format", "auto"),
        "tools": [],
        "tool_choice": "none",
        "parallel_tool_calls": True,
    }
    return {**shown, "warnings": list(run.notes)} if run.notes else shown
