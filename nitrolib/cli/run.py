"""`nitro run`: one answer on standard output."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from . import console
from .arguments import (
    MODEL_AND_PROMPT,
    STORAGE,
    add_sampling_flags,
    add_settings_flags,
    sampling_params,
    settings_from,
)
from .model import open_engine, parameters, template

if TYPE_CHECKING:
    import argparse

    from ..config import Settings
    from ..engine import Completion, Engine, Generation
    from ..sampling import SamplingParams
    from .arguments import Subparsers


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "run",
        help="give one answer",
        description="Write the answer to PROMPT on standard output. Words are joined by spaces; a "
        "- stands for the text of standard input, set off by an empty line. Without PROMPT the "
        "prompt is standard input alone.",
    )
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="what to answer")
    parser.add_argument("--system", metavar="TEXT", help="system message in front of the prompt")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="continue PROMPT as it is: no template, control tokens spelled in it count",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object at the end")
    add_sampling_flags(parser)
    add_settings_flags(parser, MODEL_AND_PROMPT)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args, (*MODEL_AND_PROMPT, *STORAGE))
    params = sampling_params(args, parameters(settings))
    if args.raw and args.system is not None:
        raise InvalidRequest(
            "--raw has no place for a system message", field="system", value=args.system
        )
    prompt = prompt_text(args.prompt)
    with open_engine(settings, clean_cache_threshold=0) as engine:
        with _start(engine, settings, prompt, params, args) as generation:
            if not args.json:
                _stream(generation)
            completion = generation.result()
        if args.json:
            console.print_json(_as_json(completion, engine))
    for note in completion.notes:
        console.complain(f"note: {note}")
    return 0


def prompt_text(words: list[str]) -> str:
    """The prompt that the arguments spell; InvalidRequest when there is none."""
    if not words and sys.stdin.isatty():
        raise InvalidRequest(
            "no PROMPT: give one as an argument, or pipe one in", field="prompt", allowed="a text"
        )
    if words.count("-") > 1:
        raise InvalidRequest("standard input can be read only once", field="prompt", value="-")
    blocks: list[str] = []
    line: list[str] = []
    for word in words or ["-"]:
        if word == "-":
            blocks += [" ".join(line), console.read_stdin()]
            line = []
        else:
            line.append(word)
    text = "\n\n".join(block for block in [*blocks, " ".join(line)] if block)
    if not text.strip():
        raise InvalidRequest("the prompt is empty", field="prompt", value=text, allowed="a text")
    return text


def _start(
    engine: Engine,
    settings: Settings,
    text: str,
    params: SamplingParams,
    args: argparse.Namespace,
) -> Generation:
    from ..prompt import Message, Prompt, Segment

    if args.raw:
        return engine.stream(Prompt((Segment(text, special=True),)), params)
    messages = [Message("system", args.system)] if args.system is not None else []
    messages.append(Message("user", text))
    request = engine.chat_request(messages, params, template=template(settings))
    return engine.submit(request)


def _stream(generation: Generation) -> None:
    """Text as it comes, and a line end behind it if the model gave none."""
    last = "\n"
    for chunk in generation:
        if chunk.text:
            console.write_answer(chunk.text)
            last = chunk.text
    if not last.endswith("\n"):
        console.write_answer("\n")


def _as_json(completion: Completion, engine: Engine) -> dict[str, Any]:
    model = engine.status().model
    assert model is not None  # this process loaded it and nobody else unloads it
    usage = asdict(completion.usage) | {"total_tokens": completion.usage.total_tokens}
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "stop": completion.stop,
        "usage": usage,
        "timings": asdict(completion.timings),
        "model": {
            "path": model.path,
            "name": model.name,
            "architecture": model.architecture,
            "backend": model.backend,
            "n_ctx": model.n_ctx,
            "gpu_layers": model.gpu_layers,
            "threads": model.threads,
        },
        "notes": [*model.notes, *completion.notes],
    }
