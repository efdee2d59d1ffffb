"""`nitro inspect`: what is in a GGUF file, what it needs, and whether it can run here."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ModelFileError, ModelLoadError
from . import console
from .arguments import MODEL, add_settings_flags, settings_from

if TYPE_CHECKING:
    import argparse

    from ..backends.memory import MemoryPlan
    from ..config import Settings
    from ..gguf import GGUFFile, ModelInfo
    from .arguments import Subparsers

_LONGEST_VALUE = 60  # characters of a metadata value in the list; --json has it whole
_LONGEST_ARRAY = 16  # values of an array that --json lists; of a longer one it tells the length


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """Whether a file can run here with given settings: with which backend and why, or why not.
    `notes` say what would differ from what was asked for."""

    runs: bool
    backend: str | None
    reason: str
    n_ctx: int
    memory: MemoryPlan | None
    available_bytes: int | None
    gpu_layers: int
    notes: tuple[str, ...]


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "inspect",
        help="tell what is in a GGUF file and whether it can run",
        description="Tell what is in a GGUF file, how much memory it needs with the settings "
        "given, and whether it can run here. A damaged file ends with status 1.",
    )
    parser.add_argument("file", metavar="FILE", help="GGUF file to look into")
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    add_settings_flags(parser, MODEL, without=("model",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..gguf import open_gguf, verify_file

    settings = settings_from(args, MODEL)
    file = open_gguf(args.file)
    info = verify_file(file)
    found = fitness(args.file, info, settings)
    if args.json:
        console.print_json(_as_json(file, info, found, settings))
    else:
        print(_as_text(file, info, found, settings))
    return 0


def fitness(path: str, info: ModelInfo, settings: Settings) -> Fitness:
    """What loading the file with *settings* would come to; nothing is loaded."""
    from ..backends import choose, gpu_layers, memory, needs

    options = settings.load_options()
    plan, n_ctx, layers, backend = None, 0, 0, None
    notes: tuple[str, ...] = ()
    available = memory.available_bytes()
    try:
        choice = choose(path, settings.backend)
        backend = choice.backend
        found = needs(info, options, backend)
        n_ctx, plan, notes = found.n_ctx, found.memory, found.notes
        tight = memory.check(plan, path, available)
        gpu = gpu_layers(info, options, plan, backend)
        layers = gpu.count
        notes = (*notes, *((tight,) if tight else ()), *gpu.notes)
        runs, reason = True, choice.reason
    except (ModelFileError, ModelLoadError) as error:
        if isinstance(error, ModelFileError) and not getattr(error, "unsupported", False):
            raise
        runs, reason = False, error.message
    return Fitness(
        runs=runs,
        backend=backend,
        reason=reason,
        n_ctx=n_ctx,
        memory=plan,
        available_bytes=available,
        gpu_layers=layers,
        notes=notes,
    )


def _as_text(file: GGUFFile, info: ModelInfo, found: Fitness, settings: Settings) -> str:
    rows = [
        ("file", f"{console.printable(info.path)} ({_size(info.file_bytes)}, GGUF {info.version})"),
        ("name", console.printable(info.name or "(none)")),
        ("architecture", f"{console.printable(info.architecture)}, {_shape(info)}"),
        ("parameters", f"{info.n_params:,}"),
        ("weights", _weights(info)),
        ("context", f"{info.n_ctx_train:,} tokens in training"),
        ("tokenizer", f"{console.printable(info.tokenizer) or 'none'}, {info.n_vocab:,} tokens"),
        ("chat template", _template(info)),
        ("memory", _memory(found, settings)),
        ("runs", _verdict(found)),
        *(("note", note) for note in found.notes),
    ]
    keys = [(key, _shown(file, key)) for key in file.metadata]
    style = console.Style.of_stdout()
    head = style.bold(f"metadata ({len(keys)} keys)")
    return f"{console.table(rows)}\n\n{head}\n{console.table(keys, indent='  ')}"


def _shape(info: ModelInfo) -> str:
    return (
        f"{info.n_layer} layers, width {info.n_embd}, {info.n_head} heads "
        f"({info.n_head_kv} with keys and values), feed-forward {info.n_ff}"
    )


def _weights(info: ModelInfo) -> str:
    kinds = ", ".join(f"{count} {name}" for name, count in info.tensor_types)
    return f"{info.quantization or 'none'}, {_size(info.tensor_bytes)} in tensors {kinds}"


def _template(info: ModelInfo) -> str:
    if info.chat_template is None:
        return "none: the Nitro prompts are used"
    return f"yes, {len(info.chat_template):,} characters"


def _memory(found: Fitness, settings: Settings) -> str:
    if found.memory is None:
        return "not reckoned"
    plan = found.memory
    free = "" if found.available_bytes is None else f"; {_size(found.available_bytes)} are free"
    again = f" and again {_size(plan.repacked)} in the processor's layout" if plan.repacked else ""
    return (
        f"{_size(plan.total)} for {settings.n_parallel} x {found.n_ctx:,} tokens of context: "
        f"weights {_size(plan.weights)}{again}, KV cache {_size(plan.kv_cache)}, "
        f"scratch {_size(plan.scratch)}{free}"
    )


def _verdict(found: Fitness) -> str:
    if not found.runs:
        return f"no: {console.printable(found.reason)}"
    where = f"{found.gpu_layers} layers on the GPU" if found.gpu_layers else "on the CPU"
    return f"yes, with {found.backend} {where}: {found.reason}"


def _shown(file: GGUFFile, key: str) -> str:
    """A metadata value on one line."""
    entry = file.metadata.entry(key)
    if entry.count and not isinstance(file.metadata[key], str):
        return f"{entry.type_name} of {entry.count:,}"
    text = console.printable(str(file.metadata[key]))
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + " ..."


def _as_json(file: GGUFFile, info: ModelInfo, found: Fitness, settings: Settings) -> dict[str, Any]:
    plan = found.memory
    return {
        "path": os.path.abspath(info.path),
        "file_bytes": info.file_bytes,
        "gguf_version": info.version,
        "name": info.name,
        "architecture": info.architecture,
        "n_params": info.n_params,
        "n_layer": info.n_layer,
        "n_embd": info.n_embd,
        "n_head": info.n_head,
        "n_head_kv": info.n_head_kv,
        "n_ff": info.n_ff,
        "n_ctx_train": info.n_ctx_train,
        "n_vocab": info.n_vocab,
        "quantization": info.quantization,
        "tensors": info.n_tensors,
        "tensor_bytes": info.tensor_bytes,
        "tensor_types": dict(info.tensor_types),
        "tokenizer": info.tokenizer,
        "chat_template": info.chat_template,
        "ctx_len": settings.ctx_len,
        "n_parallel": settings.n_parallel,
        "n_ctx": found.n_ctx,
        "memory": None
        if plan is None
        else {
            "total_bytes": plan.total,
            "weights_bytes": plan.weights,
            "repacked_bytes": plan.repacked,
            "kv_cache_bytes": plan.kv_cache,
            "scratch_bytes": plan.scratch,
            "available_bytes": found.available_bytes,
        },
        "runs": found.runs,
        "backend": found.backend,
        "reason": found.reason,
        "gpu_layers": found.gpu_layers,
        "notes": list(found.notes),
        "metadata": {key: _value(file, key) for key in file.metadata},
    }


def _value(file: GGUFFile, key: str) -> Any:
    value = file.metadata[key]
    if isinstance(value, (str, bool, int, float)):
        return _plain(value)
    if len(value) > _LONGEST_ARRAY:
        return {"array": file.metadata.entry(key).type_name, "length": len(value)}
    return [_plain(one.item() if hasattr(one, "item") else one) for one in value]


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _size(count: int) -> str:
    """Bytes in words."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
