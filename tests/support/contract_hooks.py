"""What schemathesis needs to know of a server: `support.contract` runs it with this module."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import schemathesis
from schemathesis.checks import CHECKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from schemathesis import Case, CheckContext, HookContext, Response

KEY = "contract"  # of the server; support.contract has the same
MODEL = Path(os.environ["CONTRACT_MODEL"])  # the file that is loaded when a request comes

# After these the model is not as the next request needs it.
_DISTURBING = frozenset(
    {"loadModel", "unloadModel", "unloadModelByPost", "startLoadingModel"}
    | {"janStartModel", "janStopModel", "janDeleteModel", "janAddModel"}
)

# Field -> why a value that its schema allows may be refused all the same. A schema says nothing
# about two fields together, about a grammar, or about the model that is loaded.
UNSAID = {
    "after": "the id of a record of the list",
    "before": "the id of a record of the list",
    "best_of": "not below n, and not beyond it in a stream",
    "content": "it must fit into the context",
    "ctx_len": "a token for each slot",
    "dimensions": "at most the model's own",
    "dry_sequence_breakers": "each must be tokens of this model",
    "grammar": "a grammar that can be read",
    "id_slot": "one of the slots that the model was loaded with",
    "input": "it must fit into the context; a result follows its call",
    "input_prefix": "it must fit into the context",
    "json_schema": "a schema that can be followed",
    "lora": "adapters that are loaded",
    "logit_bias": "tokens of this model",
    "messages": "they must fit into the context; a result follows its call",
    "model_path": "the same as llama_model_path",
    "n": "no more answers than can run or wait",
    "n_cmpl": "no more answers than can run or wait",
    "n_predict": "the same as max_tokens",
    "n_probs": "the same as logprobs, and an answer of bounded size",
    "parameters": "as of the fields in it",
    "post_sampling_probs": "log probabilities beside it",
    "previous_response_id": "a response that was kept",
    "prompt": "it must fit into the context, and its tokens be those of this model",
    "prompt_template": "{prompt} in it",
    "prompts": "no more answers than can run or wait",
    "response_format": "a schema that can be followed",
    "samplers": "names, or letters, of samplers",
    "source": "a model that is there",
    "source_url": "a model that is there",
    "text": "a schema that can be followed",
    "thread_id": "a thread with a message to answer",
    "tokens": "tokens of this model",
    "tool_choice": "one of the tools, in the form of the dialect",
    "tools": "names that differ, and schemas that can be followed",
    "top_logprobs": "logprobs beside it",
    "typical_p": "the same as typ_p",
}
# Of errors that name no field. Numbers are float32, whatever JSON can write; NUL is in no text that
# a database keeps.
_WORDS = ("download_error", "finite", "cannot be kept", "the context holds", "can run or wait")


def _id(case: Case) -> str:
    return str(case.operation.definition.raw.get("operationId", ""))


def _is_valid(case: Case) -> bool:
    """Whether all of a request is what the document allows."""
    return case.meta is not None and case.meta.generation.mode.is_positive


@schemathesis.hook
def before_call(_context: HookContext, case: Case, _kwargs: dict[str, Any]) -> None:
    """A good request to load a model names one that is there, and finds none loaded."""
    if _id(case) == "loadModel" and isinstance(case.body, dict) and _is_valid(case):
        _unload(case)
        if "model_id" in case.body:
            case.body["model_id"] = MODEL.parent.name
        for name in ("llama_model_path", "model_path"):
            if case.body.get(name) is not None:
                case.body[name] = str(MODEL)


@schemathesis.hook
def after_call(_context: HookContext, case: Case, _response: Response) -> None:
    """Bring the model back that a request has taken away."""
    if _id(case) in _DISTURBING:
        if not MODEL.exists():
            MODEL.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.environ["CONTRACT_SPARE"], MODEL)
        _restore(case)


@schemathesis.check
def accepts_valid_data(ctx: CheckContext, response: Response, case: Case) -> None:
    """As positive_data_acceptance, but for what the document says in words, and for UNSAID."""
    if _is_valid(case) and response.status_code in (400, 413, 422):
        body = json.loads(response.content)
        field = _field(body)
        if field is not None and (field.split("/")[0] in UNSAID or _is_refused(case, field)):
            return
        if any(word in str(body) for word in _WORDS) or "Always refused" in _told(case):
            return
    CHECKS.get_one("positive_data_acceptance")(ctx, response, case)


@schemathesis.check
def rejects_invalid_data(ctx: CheckContext, response: Response, case: Case) -> None:
    """As negative_data_rejection, but an empty value in a query is one that is not there."""
    if "" not in (case.query or {}).values():
        CHECKS.get_one("negative_data_rejection")(ctx, response, case)


@schemathesis.check
def keeps_what_it_makes(ctx: CheckContext, response: Response, case: Case) -> None:
    """As ensure_resource_availability, but an error may be about what a field of the body names."""
    if response.status_code == 404 and response.content:
        error = json.loads(response.content).get("error")
        if isinstance(error, dict) and error.get("param"):
            return
    CHECKS.get_one("ensure_resource_availability")(ctx, response, case)


@schemathesis.check
def stays_deleted(ctx: CheckContext, response: Response, case: Case) -> None:
    """As use_after_free, but the model that is loaded is brought back when it was deleted."""
    if (case.path_parameters or {}).get("model_id") != MODEL.parent.name:
        CHECKS.get_one("use_after_free")(ctx, response, case)


def _field(body: Any) -> str | None:
    """The field that an error names."""
    error = body.get("error")
    if isinstance(error, dict):
        return (error.get("param") or "").replace("[", "/") or None
    return re.split(r"[ \[]", str(body.get("detail", "")))[0]


def _is_refused(case: Case, field: str) -> bool:
    """Whether the document says of *field* that it, or some of its values, are refused."""
    told = [one.get("description", "") for one in _schemas(case, field.split("/"))]
    return any(word in text for text in told for word in ("efused", "ot supported", "Only "))


def _told(case: Case) -> str:
    return str(case.operation.definition.raw.get("description", ""))


def _schemas(case: Case, path: list[str]) -> Iterator[Mapping[str, Any]]:
    """The schemas of the field at *path*, of the body or the query, and of what it lies in."""
    root, raw = case.operation.schema.raw_schema, case.operation.definition.raw
    for one in (way for given in raw.get("parameters", ()) for way in _ways(root, given)):
        if one.get("name") == path[0]:
            yield one
    bodies = _ways(root, raw.get("requestBody", {}))
    found = [one["schema"] for body in bodies for one in body.get("content", {}).values()]
    for part in path:
        found = [inner for one in found for inner in _inside(root, one, part)]
        for one in found:
            yield from _ways(root, one)


def _inside(root: Any, node: Any, part: str) -> Iterator[Any]:
    for one in _ways(root, node):
        if part in one.get("properties", {}):
            yield one["properties"][part]
        elif part.isdecimal() and "items" in one:
            yield one["items"]


def _ways(root: Any, node: Any) -> Iterator[Any]:
    """*node* and all that it refers to or is made of."""
    yield node
    if "$ref" in node:
        target = root
        for part in node["$ref"].split("/")[1:]:
            target = target[part.replace("~1", "/")]
        yield from _ways(root, target)
    for word in ("allOf", "anyOf", "oneOf"):
        for one in node.get(word, ()):
            yield from _ways(root, one)


def _restore(case: Case) -> None:
    """Load the model as it was, by the routes of the dialect that has changed it."""
    _unload(case)
    if case.operation.path.startswith("/models/"):  # LocalLab
        _send(case, "POST", "/models/load", {"model_id": MODEL.parent.name})
    elif case.operation.path.startswith("/v1/models"):  # Jan
        _send(case, "PUT", f"/v1/models/{MODEL.parent.name}/start", {"ctx_len": 128})
    else:
        body = {"llama_model_path": str(MODEL), "ctx_len": 128, "cpu_threads": 1}
        _send(case, "POST", "/inferences/llamacpp/loadmodel", body)


def _unload(case: Case) -> None:
    if case.operation.path.startswith("/models/"):
        _send(case, "POST", "/models/unload", None)
    elif case.operation.path.startswith("/v1/models"):
        _send(case, "PUT", f"/v1/models/{MODEL.parent.name}/stop", None)
    else:
        _send(case, "POST", "/inferences/llamacpp/unloadmodel", None)


def _send(case: Case, method: str, path: str, body: Any) -> None:
    url = case.operation.schema.get_base_url().rstrip("/") + path
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.request(method, url, json=body, headers=headers, timeout=600)
    assert answer.status_code < 400, (method, path, answer.text)
