"""The network: a Llama in PyTorch whose parameter names are those of the GGUF file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Config:
    """Every row length is a multiple of 32, the block of Q8_0."""

    vocab_size: int = 2048
    context_length: int = 1024
    dim: int = 192
    layers: int = 4
    heads: int = 6
    ffn: int = 512
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5


def rotations(config: Config) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each (context, head size / 2) float32."""
    size = config.dim // config.heads
    frequencies = config.rope_base ** (-torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(config.context_length).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn *neighbouring* pairs of x (batch, time, heads, size), as GGUF's llama does: a file
    made from these weights needs no permutation."""
    even, odd = x.float()[..., 0::2], x.float()[..., 1::2]
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return turned.flatten(-2).to(x.dtype)


class Norm(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.dim))
        self.epsilon = config.norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=False)

        self.heads = config.heads
        self.attn_norm = Norm(config)
        self.attn_q = linear(config.dim, config.dim)
        self.attn_k = linear(config.dim, config.dim)
        self.attn_v = linear(config.dim, config.dim)
        self.attn_output = linear(config.dim, config.dim)
        self.ffn_norm = Norm(config)
        self.ffn_gate = linear(config.dim, config.ffn)
        self.ffn_up = linear(config.dim, config.ffn)
        self.ffn_down = linear(config.ffn, config.dim)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        h = self.attn_norm(x)
        q, k, v = (
            projection(h).view(*h.shape[:2], self.heads, -1)
            for projection in (self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        attended = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        x = x + self.attn_output(attended.transpose(1, 2).flatten(-2))
        h = self.ffn_norm(x)
        out: Tensor = x + self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return out


class Llama(nn.Module):
    cosine: Tensor
    sine: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab_size, config.dim)
        self.blk = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.output_norm = Norm(config)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        cosine, sine = rotations(config)
        self.register_buffer("cosine", cosine[:, None, :], persistent=False)
        self.register_buffer("sine", sine[:, None, :], persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deviation = 0.02
                if name.endswith(("attn_output.weight", "ffn_down.weight")):
                    deviation /= (2 * self.config.layers) ** 0.5
                nn.init.normal_(parameter, std=deviation)

    def forward(self, tokens: Tensor) -> Tensor:
        """Final hidden states (batch, time, dim) of *tokens* (batch, time); see logits()."""
        time = tokens.shape[1]
        cosine, sine = self.cosine[:time], self.sine[:time]
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cosine, sine)
        out: Tensor = self.output_norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.output(hidden)
        return out
