"""Small models of every family that GGUF has a form for, and llama.cpp's own texts with their ids."""

from pathlib import Path

from wenlu.models.config import ModelConfig, RopeScaling

SMALL = {"dim": 64, "layers": 2, "heads": 4, "context": 32, "vocab": 70, "ffn": 96}
SHAPES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "llama": ModelConfig(family="llama", **SMALL, kv_heads=2, tied=False, attention_bias=True, mlp_bias=True),
    "mistral": ModelConfig(family="mistral", **SMALL, kv_heads=1, head_dim=32, rope_theta=5e5),
    "qwen2": ModelConfig(family="qwen2", **SMALL, kv_heads=2),
    "qwen3": ModelConfig(family="qwen3", **SMALL, kv_heads=2, head_dim=24, tied=False),
}
QWEN = SHAPES["qwen3"]
LLAMA3 = RopeScaling("llama3", 8.0, 64, 1.0, 4.0)


def golden(data_dir: Path, name: str) -> tuple[list[str], list[list[int]]]:
    """llama.cpp's 46 texts and the ids that they must have."""
    file = data_dir / "tokenizers" / "golden" / f"ggml-vocab-{name}.gguf"
    texts = file.with_name(f"{file.name}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    ids = [[*map(int, line.split())] for line in file.with_name(f"{file.name}.out").read_text().splitlines()]
    assert len(texts) == len(ids) == 46
    return texts, ids
