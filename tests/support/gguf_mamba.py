"""Makes a small GGUF file of a recurrent model (Mamba) with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .gguf_draft import Draft, Tensor, f32, string, u32
from .gguf_maker import Adder, llama_draft

if TYPE_CHECKING:
    from collections.abc import Sequence

N_EMBD, N_INNER, N_STATE, RANK, N_LAYER, N_VOCAB = 64, 128, 16, 4, 2, 512


def mamba_draft() -> Draft:
    """Two layers with the vocabulary of `llama_draft`."""
    draft = Draft()
    draft["general.architecture"] = string("mamba")
    for key, value in {
        "context_length": 512,
        "embedding_length": N_EMBD,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "block_count": N_LAYER,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": N_INNER,
        "ssm.state_size": N_STATE,
        "ssm.time_step_rank": RANK,
    }.items():
        draft[f"mamba.{key}"] = u32(value)
    draft["mamba.attention.layer_norm_rms_epsilon"] = f32(1e-5)
    for name, entry in llama_draft().metadata:
        if name.startswith("tokenizer."):
            draft[name] = entry
    add = Adder(draft, "F32", 0)
    add.matrix("token_embd", N_EMBD, N_VOCAB, std=1.0)
    for layer in range(N_LAYER):
        _block(draft, add, f"blk.{layer}.")
    add.norm("output_norm", N_EMBD)
    add.matrix("output", N_EMBD, N_VOCAB, std=2 * N_EMBD**-0.5)
    return draft


def _block(draft: Draft, add: Adder, block: str) -> None:
    add.norm(block + "attn_norm", N_EMBD)
    add.matrix(block + "ssm_in", N_EMBD, 2 * N_INNER)
    add.matrix(block + "ssm_conv1d", 4, N_INNER)
    add.bias(block + "ssm_conv1d", N_INNER)
    add.matrix(block + "ssm_x", N_INNER, RANK + 2 * N_STATE)
    add.matrix(block + "ssm_dt", RANK, N_INNER)
    add.bias(block + "ssm_dt", N_INNER)
    decay = -np.tile(np.arange(1, N_STATE + 1), N_INNER)
    _append(draft, block + "ssm_a", (N_STATE, N_INNER), decay)
    _append(draft, block + "ssm_d", (N_INNER,), np.ones(N_INNER))
    add.matrix(block + "ssm_out", N_INNER, N_EMBD)


def _append(draft: Draft, name: str, shape: Sequence[int], values: np.ndarray) -> None:
    data = values.astype("<f4").tobytes()
    draft.tensors.append((name, Tensor([*shape], 0, len(data), lambda: [data])))
