"""The Jan dialect: its routes. Translation only; what a request means is decided elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint

from .. import openai
from ..dialects import Dialect, add_route
from ..service import service
from . import assistants, chat, messages, models, runs, threads
from .errors import error_body
from .state import EXTENSION, State, state

if TYPE_CHECKING:
    from flask import Response
    from flask.blueprints import BlueprintSetupState

__all__ = ["DIALECT"]

DIALECT = Dialect(
    name="jan",
    blueprint=Blueprint("jan", __name__),
    document="jan",
    error_body=error_body,
)


@DIALECT.blueprint.record
def _begin(setup: BlueprintSetupState) -> None:
    setup.app.extensions[EXTENSION] = State()


@DIALECT.blueprint.before_request
def _before() -> None:
    state().note_models(service())


@DIALECT.blueprint.after_request
def _after(response: Response) -> Response:
    state().note_models(service())
    return response


def _add_inference() -> None:
    blueprint = DIALECT.blueprint
    add_route(blueprint, chat.chat_completion, ("POST",), "/v1/chat/completions")
    add_route(blueprint, openai.completion, ("POST",), "/v1/completions")
    add_route(blueprint, openai.embeddings, ("POST",), "/v1/embeddings")


def _add_models() -> None:
    blueprint, one = DIALECT.blueprint, "/v1/models/<path:model_id>"
    add_route(blueprint, models.list_models, ("GET",), "/v1/models")
    add_route(blueprint, models.add_model, ("POST",), "/v1/models")
    add_route(blueprint, models.download_model, ("GET",), "/v1/models/download/<path:model_id>")
    add_route(blueprint, models.start_model, ("PUT",), f"{one}/start")
    add_route(blueprint, models.stop_model, ("PUT",), f"{one}/stop")
    add_route(blueprint, models.show_model, ("GET",), one)
    add_route(blueprint, models.delete_model, ("DELETE",), one)


def _add_assistants() -> None:
    blueprint, one = DIALECT.blueprint, "/v1/assistants/<assistant_id>"
    add_route(blueprint, assistants.list_assistants, ("GET",), "/v1/assistants")
    add_route(blueprint, assistants.create_assistant, ("POST",), "/v1/assistants")
    add_route(blueprint, assistants.show_assistant, ("GET",), one)
    add_route(blueprint, assistants.change_assistant, ("POST", "PATCH"), one)
    add_route(blueprint, assistants.delete_assistant, ("DELETE",), one)


def _add_threads() -> None:
    blueprint, one = DIALECT.blueprint, "/v1/threads/<thread_id>"
    add_route(blueprint, threads.list_threads, ("GET",), "/v1/threads")
    add_route(blueprint, threads.create_thread, ("POST",), "/v1/threads")
    add_route(blueprint, threads.show_thread, ("GET",), one)
    add_route(blueprint, threads.change_thread, ("POST", "PATCH"), one)
    add_route(blueprint, threads.delete_thread, ("DELETE",), one)
    all_messages, message = f"{one}/messages", f"{one}/messages/<message_id>"
    add_route(blueprint, messages.list_messages, ("GET",), all_messages)
    add_route(blueprint, messages.create_message, ("POST",), all_messages)
    add_route(blueprint, messages.show_message, ("GET",), message)
    add_route(blueprint, messages.change_message, ("POST",), message)
    add_route(blueprint, messages.delete_message, ("DELETE",), message)
    add_route(blueprint, messages.message_files, ("GET",), f"{message}/files")
    add_route(blueprint, messages.message_file, ("GET",), f"{message}/files/<file_id>")


def _add_runs() -> None:
    blueprint, all_runs = DIALECT.blueprint, "/v1/threads/<thread_id>/runs"
    add_route(blueprint, runs.create_with_thread, ("POST",), "/v1/threads/runs")
    add_route(blueprint, runs.create_run, ("POST",), all_runs)
    add_route(blueprint, runs.list_runs, ("GET",), all_runs)
    add_route(blueprint, runs.show_run, ("GET",), f"{all_runs}/<run_id>")
    add_route(blueprint, runs.change_run, ("POST",), f"{all_runs}/<run_id>")
    add_route(blueprint, runs.cancel_run, ("POST",), f"{all_runs}/<run_id>/cancel")


for _add in (_add_inference, _add_models, _add_assistants, _add_threads, _add_runs):
    _add()
