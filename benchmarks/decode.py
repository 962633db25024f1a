"""Decoding beside Transformers' `generate`: tokens a second by number format, texts at once and length of prompt.

A Llama of 110 million random weights and the real stories260K, greedy, the same prompts of random ids, so many tokens
for each text, end tokens left out. Ours is `Engine` within `fast` (f32, bf16, and int8 weights), the peer
`generate(do_sample=False)` as it comes (f32 and bf16, its own cache), in turn within one process; each figure is the
best of the rounds. Decoding is timed from the first token of all texts to the last, reading prompts up to the first.

What bounds it is reading weights (and, for every text, keys and values) once a step: `bound` is the tokens a second
that a plain reading of memory at the machine's measured speed would give, `reached` the part of it.

    python benchmarks/decode.py [--rounds 1] [--tokens 32]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

import record

FORM = {"family": "llama", "dim": 768, "layers": 12, "heads": 12, "ffn": 2048, "context": 1024, "vocab": 32000}
FORMS = ("110M", "stories260K")
BATCHES, PROMPTS = (1, 8, 32), (64, 512)
FORMATS = ("f32", "bf16", "int8")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def memory_speed() -> float:
    """Bytes a second of a plain sum over 1 GiB, the best of five."""
    block, best = torch.ones(1 << 28), float("inf")
    for _ in range(5):
        began = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - began)
    return block.nbytes / best


def folder_of(form: str, place: Path) -> Path:
    from wenlu.hub.folder import save
    from wenlu.models.build import build
    from wenlu.models.config import ModelConfig

    if form == "stories260K":
        return record.data_folder() / "stories260K"
    torch.manual_seed(0)
    model = build(ModelConfig(**FORM, tied=False), 0)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.02)
    save(model, None, place / form)
    return place / form


def prompts_of(batch: int, length: int, vocab: int) -> list[tuple[int, ...]]:
    chosen = torch.randint(3, vocab, (batch, length), generator=torch.Generator().manual_seed(length))
    return [tuple(row) for row in chosen.tolist()]


def ours(folder: Path, format: str):
    """(prompts, tokens) → the ids made, by our engine; and the bytes of the weights read at each step."""
    from wenlu.compress.quantize import quantize
    from wenlu.hub.folder import load
    from wenlu.inference.batch import Engine
    from wenlu.inference.kernels import fast
    from wenlu.inference.text import Request

    model = load(folder, dtype=DTYPES.get(format, torch.float32))[0]
    if format == "int8":
        model = quantize(model)
    looked_up = "embed" if model.lm_head is not None else "-"
    weights = sum(tensor.nbytes for name, tensor in model.state_dict().items() if not name.startswith(looked_up))

    def write(prompts, tokens):
        """The ids, seconds up to the first token and after it, and the bytes held for texts."""
        with fast(model):
            engine, began = Engine(model), time.perf_counter()
            texts = [engine.add(Request(prompt, max_tokens=tokens)) for prompt in prompts]
            going, first = engine.step(), time.perf_counter()
            held = engine.bytes
            while going:
                going = engine.step()
        return [text.ids for text in texts], first - began, time.perf_counter() - first, held

    return write, weights


def peer(folder: Path, format: str):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[format]).eval()
    model.generation_config.eos_token_id = None

    def write(prompts, tokens):
        ids, ends, began = torch.tensor(prompts), [], time.perf_counter()

        def clock(made, scores, **_):
            ends.append(time.perf_counter())
            return torch.zeros(len(made), dtype=torch.bool)

        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, pad_token_id=0,
            stopping_criteria=[clock],
        )  # fmt: skip
        return made[:, ids.shape[1] :].tolist(), ends[0] - began, ends[-1] - ends[0], 0

    return write


def measure(form: str, folder: Path, format: str, options, speed: float) -> list[dict]:
    from transformers import AutoConfig

    mine, weights = ours(folder, format)
    sides = {"ours": mine} | ({} if format == "int8" else {"peer": peer(folder, format)})
    vocab, rows = AutoConfig.from_pretrained(folder).vocab_size, []
    context = AutoConfig.from_pretrained(folder).max_position_embeddings
    for length in PROMPTS:
        if length + options.tokens > context:
            continue
        for batch in BATCHES:
            prompts, best, ids, held = prompts_of(batch, length, vocab), {}, {}, 0
            for write in sides.values() if length == PROMPTS[0] else ():
                write(prompts, 3)
            for _ in range(options.rounds):
                for side, write in sides.items():
                    ids[side], first, rest, new = write(prompts, options.tokens)
                    held = max(held, new)
                    known = best.get(side, (float("inf"), float("inf")))
                    best[side] = (min(known[0], first), min(known[1], rest))
            row = {"form": form, "format": format, "batch": batch, "prompt": length, "weights": weights}
            for side, (first, rest) in best.items():
                row[side] = {"decode": batch * (options.tokens - 1) / rest, "prefill": batch * length / first}
                row[side]["first_token_s"] = first
            row["bound"] = batch * speed / (weights + held)
            row["reached"] = row["ours"]["decode"] / row["bound"]
            row["bytes_a_text"] = held // batch
            if "peer" in row:
                row["ratio"] = row["ours"]["decode"] / row["peer"]["decode"]
                row["prefill_ratio"] = row["ours"]["prefill"] / row["peer"]["prefill"]
                row["same_texts"] = sum(a == b for a, b in zip(ids["ours"], ids["peer"], strict=True))
            rows.append(row)
            told = f"{row['ratio']:.2f} x Transformers ({row['prefill_ratio']:.2f} reading)" if "peer" in row else ""
            print(f"{form} {format} batch {batch} prompt {length}: {row['ours']['decode']:,.0f} tokens/s, "
                  f"{row['reached']:.0%} of what memory gives; {told}", flush=True)  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    from importlib.metadata import version

    speed, rows = memory_speed(), []
    print(f"memory: {speed / 1e9:.1f} GB/s", flush=True)
    with tempfile.TemporaryDirectory() as place:
        for form in FORMS:
            folder = folder_of(form, Path(place))
            for format in FORMATS:
                rows += measure(form, folder, format, options, speed)
    facts = {"rounds": options.rounds, "tokens": options.tokens, "memory": speed, "shape": FORM}
    record.keep("decode", {**facts, "peers": {"transformers": version("transformers")}, "results": rows})
    print(json.dumps({"rows": len(rows)}))


if __name__ == "__main__":
    main()
