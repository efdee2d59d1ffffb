"""The architectures that llama-cpp-python may be handed, and what their graphs take for granted.

Source: llama.cpp as vendored in llama-cpp-python 0.3.36, src/llama-arch.cpp (LLM_ARCH_NAMES) and
the graphs in src/models/.
"""

from __future__ import annotations

__all__ = [
    "ARCHITECTURES",
    "EQUAL_HEADS",
    "EXPERTS",
    "RECURRENT",
    "SECTIONED_ROPE",
    "WHOLE_HEAD_ROPE",
    "WIDENED",
]

# Left out of the library's list are those that are no language model by themselves: clip, encoders
# with a decoder (t5, t5encoder), speech (wavtokenizer-dec, qwen3tts, pockettts), draft models
# (eagle3, dflash, gemma4-assistant), those that write by diffusion and not token by token (dream,
# llada, llada-moe, rnd1), and gptj, which has a name there and no graph.
ARCHITECTURES = frozenset({
    "afmoe", "apertus", "arcee", "arctic", "arwkv7", "baichuan", "bailingmoe", "bailingmoe2",
    "bailingmoe3", "bert", "bitnet", "bloom", "chameleon", "chatglm", "codeshell", "cogvlm",
    "cohere2", "cohere2moe", "command-r", "dbrx", "deci", "deepseek", "deepseek2", "deepseek2-ocr",
    "deepseek32", "deepseek4", "dots1", "dots3note", "ernie4_5", "ernie4_5-moe", "eurobert",
    "exaone", "exaone-moe", "exaone4", "falcon", "falcon-h1", "gemma", "gemma-embedding", "gemma2",
    "gemma3", "gemma3n", "gemma4", "glm-dsa", "glm4", "glm4moe", "glm5-next", "gpt-oss", "gpt2",
    "gptneox", "granite", "granite_swa", "granitehybrid", "granitemoe", "graniteswitch", "grok",
    "grovemoe", "hrm_text", "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3", "hy_v4",
    "internlm2", "jais", "jais2", "jamba", "jina-bert-v2", "jina-bert-v3", "kimi-k3", "kimi-linear",
    "laguna", "lfm2", "lfm2moe", "llama", "llama-embed", "llama4", "maincoder", "mamba", "mamba2",
    "maple", "mellum", "mimo2", "minicpm", "minicpm3", "minimax-01", "minimax-m2", "minimax-m3",
    "mistral3", "mistral4", "modern-bert", "mpt", "muse-glimmer", "nanbeige", "nemotron",
    "nemotron_h", "nemotron_h_moe", "neo-bert", "nomic-bert", "nomic-bert-moe", "olmo", "olmo2",
    "olmoe", "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo",
    "plamo2", "plamo3", "plm", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35",
    "qwen35moe", "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "qwen4exp", "refact", "rwkv6",
    "rwkv6qwen2", "rwkv7", "seed_oss", "smallthinker", "smollm3", "spark2_5", "stablelm",
    "starcoder", "starcoder2", "step35", "talkie", "xverse",
})  # fmt: skip

# Without attention, so without heads.
RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})

# Their graphs assert that the rotary embedding covers the whole head ...
WHOLE_HEAD_ROPE = frozenset({
    "apertus", "arcee", "arctic", "baichuan", "chameleon", "codeshell", "cogvlm", "cohere2moe",
    "dbrx", "deci", "deepseek", "dots1", "ernie4_5", "ernie4_5-moe", "exaone", "exaone-moe",
    "exaone4", "falcon", "granite", "granite_swa", "granitemoe", "graniteswitch", "grok",
    "grovemoe", "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3", "internlm2", "jais2",
    "llama", "llama-embed", "llama4", "maincoder", "mellum", "minimax-01", "minimax-m2", "mistral3",
    "nemotron", "olmo", "olmo2", "olmoe", "orion", "paddleocr", "pangu-embedded", "plamo", "qwen2",
    "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "seed_oss", "smallthinker",
    "smollm3", "starcoder2", "talkie", "xverse",
})  # fmt: skip

# ... and that keys and values have one size.
EQUAL_HEADS = WHOLE_HEAD_ROPE - {"talkie"} | {
    "afmoe", "bailingmoe2", "bert", "bitnet", "bloom", "chatglm", "cohere2", "command-r",
    "eurobert", "glm4", "glm4moe", "gpt2", "gptneox", "granitehybrid", "jais", "jina-bert-v2",
    "jina-bert-v3", "laguna", "lfm2", "lfm2moe", "minimax-m3", "modern-bert", "mpt", "muse-glimmer",
    "nanbeige", "nemotron_h", "nemotron_h_moe", "neo-bert", "nomic-bert", "nomic-bert-moe",
    "openelm", "phi2", "phi3", "phimoe", "qwen", "qwen35", "qwen35moe", "qwen3next", "qwen4exp",
    "refact", "spark2_5", "stablelm", "starcoder",
}  # fmt: skip

# Without experts they divide by their number, or assert that there are some.
EXPERTS = frozenset({
    "bailingmoe2", "glm4moe", "grovemoe", "lfm2moe", "mellum", "nemotron_h_moe", "qwen35moe",
    "qwen3next", "qwen3vlmoe", "qwen4exp", "smallthinker",
})  # fmt: skip

# Their hidden state is wider than embedding_length by themselves.
WIDENED = frozenset({"deepseek4", "qwen4exp"})

# They rotate the head in sections, one for each direction of an image.
SECTIONED_ROPE = frozenset({
    "paddleocr", "qwen2vl", "qwen35", "qwen35moe", "qwen3vl", "qwen3vlmoe", "qwen4exp",
})  # fmt: skip
