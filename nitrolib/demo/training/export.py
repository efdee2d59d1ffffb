"""Write the checkpoint as a GGUF file that every llama.cpp since 2023 can load: Q8_0 and F32.

python -m nitrolib.demo.training.export --out build/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import sentencepiece
import torch

from .small_talk import SEED_PRE_PROMPT

if TYPE_CHECKING:
    from .model import Config

# The seed style of Nitro. The line of the pre-prompt can be changed, or left out with "".
CHAT_TEMPLATE = (
    "{%- set pre = pre_prompt if pre_prompt is defined else " + f'"{SEED_PRE_PROMPT}"' + " -%}"
    "{%- if pre -%}{{ pre + '\\n' }}{%- endif -%}"
    "{%- for message in messages if message.role == 'system' -%}"
    "{{ \"ASSISTANT's RULE: \" + message.content + '\\n' }}"
    "{%- endfor -%}"
    "{%- for message in messages if message.role != 'system' -%}"
    "{{ ('ASSISTANT: ' if message.role == 'assistant' else 'USER: ') + message.content + '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"
)
DESCRIPTION = (
    "A very small language model for demonstrations and tests: greetings, simple facts, small "
    "sums, little stories. Trained on generated text only."
)


def add_metadata(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_name("nitro-demo")
    writer.add_description(DESCRIPTION)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_rope_dimension_count(config.dim // config.heads)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)


def token_type(tokenizer: sentencepiece.SentencePieceProcessor, token: int) -> gguf.TokenType:
    if tokenizer.is_unknown(token):
        return gguf.TokenType.UNKNOWN
    if tokenizer.is_control(token):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if tokenizer.is_byte(token) else gguf.TokenType.NORMAL


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    tokens = range(tokenizer.vocab_size())
    writer.add_tokenizer_model("llama")
    writer.add_token_list([tokenizer.id_to_piece(token).encode() for token in tokens])
    writer.add_token_scores([tokenizer.get_score(token) for token in tokens])
    writer.add_token_types([int(token_type(tokenizer, token)) for token in tokens])
    writer.add_bos_token_id(tokenizer.bos_id())
    writer.add_eos_token_id(tokenizer.eos_id())
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_weights(writer: gguf.GGUFWriter, weights: dict[str, torch.Tensor]) -> None:
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in weights.items():
        array = tensor.detach().float().numpy()
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, q8), raw_dtype=q8)


def export(out: Path, target: Path) -> None:
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=False)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
    writer = gguf.GGUFWriter(target, "llama")
    add_metadata(writer, checkpoint["config"])
    add_tokenizer(writer, tokenizer)
    add_weights(writer, checkpoint["average"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(
        f"{target}: {target.stat().st_size} bytes, step {checkpoint['step']}, "
        f"{checkpoint['tokens']} tokens, {checkpoint['seconds']:.0f} s, "
        f"held-out loss {checkpoint['held_out']:.4f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--target", type=Path, default=Path("nitrolib/demo/nitro-demo.gguf"))
    arguments = parser.parse_args()
    export(arguments.out, arguments.target)
