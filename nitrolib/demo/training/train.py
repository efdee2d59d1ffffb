"""Train the demo model on the CPU; a checkpoint lets it be stopped, exported and resumed.

python -m nitrolib.demo.training.train --out build/demo
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional

from .data import NO_LOSS, batches
from .model import Config, Llama

SEED = 2024
STEPS = 4000
BATCH_TOKENS = 8192
WARMUP = 100
MATRIX_RATE = 4e-3  # Muon, with its steps scaled to those of AdamW
OTHER_RATE = 5e-3  # AdamW: embedding, output, norms
AVERAGE = 0.998
HELD_OUT_BATCHES = 24
SAVE_EVERY = 200


def optimizers(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest."""
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blk.")]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            [{"params": matrices, "base": MATRIX_RATE}],
            weight_decay=0.05,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [{"params": others, "base": OTHER_RATE}],
            betas=(0.9, 0.98),
            weight_decay=0.01,
            fused=True,
        ),
    ]


def rate(step: int, steps: int) -> float:
    """Factor on the learning rates: a short rise, then half a cosine down to nearly nothing."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    progress = min(1.0, (step - WARMUP) / max(1, steps - WARMUP))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def loss_of(model: Llama, tokens: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Mean cross entropy over the answer tokens, and how many there were."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model(tokens)
        wanted = targets != NO_LOSS  # the output matrix runs only where there is something to learn
        logits = model.logits(hidden[wanted])
    return functional.cross_entropy(logits.float(), targets[wanted]), int(wanted.sum())


@torch.no_grad()
def held_out_loss(
    model: Llama, tokenizer: sentencepiece.SentencePieceProcessor, count: int = HELD_OUT_BATCHES
) -> float:
    total, seen = 0.0, 0
    stream = batches(tokenizer, "held-out", BATCH_TOKENS, model.config.context_length)
    for _, (tokens, targets) in zip(range(count), stream, strict=False):
        loss, size = loss_of(model, tokens, targets)
        total, seen = total + float(loss) * size, seen + size
    return total / seen


def train(out: Path, steps: int, batch: int, resume: bool, compiled: bool) -> None:
    torch.manual_seed(SEED)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
    config = Config(vocab_size=tokenizer.vocab_size())
    model, average = Llama(config), Llama(config)
    average.load_state_dict(model.state_dict())
    optimizing = optimizers(model)
    first, tokens_seen, seconds = 0, 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if resume:
        saved = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        for optimizer, state in zip(optimizing, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        first, tokens_seen, seconds = saved["step"], saved["tokens"], saved["seconds"]
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    groups = [group for optimizer in optimizing for group in optimizer.param_groups]
    # A resumed run takes dialogues of its own rather than seeing the first ones again.
    split = f"train {first}" if first else "train"
    stream = batches(tokenizer, split, batch, config.context_length)
    if compiled:
        model.compile(dynamic=True)
    running = math.nan
    for step in range(first, steps):
        started = time.perf_counter()
        tokens, targets = next(stream)
        for group in groups:
            group["lr"] = group["base"] * rate(step, steps)
        loss, _ = loss_of(model, tokens, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizing:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            keep = min(AVERAGE, (step + 1) / (step + 10))
            for old, new in zip(average.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 1 - keep)
        seconds += time.perf_counter() - started
        tokens_seen += tokens.numel()
        running = loss.item() if math.isnan(running) else 0.95 * running + 0.05 * loss.item()
        if (step + 1) % 20 == 0:
            speed = f"{tokens_seen} tokens, {tokens_seen / seconds:.0f}/s"
            print(f"step {step + 1} loss {running:.4f} {speed}", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            last = step + 1 == steps
            held_out = held_out_loss(average, tokenizer, HELD_OUT_BATCHES if last else 6)
            print(f"step {step + 1} held-out {held_out:.4f} after {seconds:.0f} s", flush=True)
            state = {
                "config": config,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizing],
                "step": step + 1,
                "tokens": tokens_seen,
                "seconds": seconds,
                "held_out": held_out,
            }
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH_TOKENS, help="tokens in a step")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.out, arguments.steps, arguments.batch, arguments.resume, arguments.compile)


if __name__ == "__main__":
    main()
