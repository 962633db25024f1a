"""Decoding beside Transformers' `generate` and plain torch, and what bounds each figure.

A Llama of 110 million random weights and the real stories260K, greedy, the same prompts of random ids, so many tokens
for each text, end tokens left out. Ours is `Engine` within `fast` (f32, bf16, and int8 weights), the peer
`generate(do_sample=False)` as it comes (f32 and bf16, its own cache), in turn within one process; each figure is the
best of the rounds. Decoding is timed from the first token of all texts to the last, reading prompts up to the first.

What bounds decoding is reading weights, and every text's keys and values, once a step: `bound` is the tokens a second
that a plain reading of memory at the machine's measured speed would give. What bounds reading a prompt is multiplying:
its `bound` is what the machine's measured speed of large products would give. `reached` is the part of a bound that is
reached. Other parts, each with a file of results of its own: t5 and lstm (`decode_families.py`), first and process
(`decode_start.py`), formats (`decode_formats.py`).

    python benchmarks/decode.py [--only texts t5 lstm first process formats] [--rounds 1] [--tokens 32]
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import record

FORM = {"family": "llama", "dim": 768, "layers": 12, "heads": 12, "ffn": 2048, "context": 1024, "vocab": 32000}
FORMS = ("110M", "stories260K")
PARTS = ("texts", "t5", "lstm", "first", "process", "formats")
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


def product_speed(format: str) -> float:
    """Operations a second of a large product, the best of five; int8 weights are multiplied in f32."""
    size, best = 2048, float("inf")
    one = torch.ones(size, size, dtype=DTYPES.get(format, torch.float32))
    for _ in range(5):
        began = time.perf_counter()
        one @ one
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


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

    model = load(folder, dtype=DTYPES.get(format, torch.float32))[0]
    if format == "int8":
        model = quantize(model)
    looked_up = "embed" if model.lm_head is not None else "-"
    weights = sum(tensor.nbytes for name, tensor in model.state_dict().items() if not name.startswith(looked_up))

    return lambda prompts, tokens: written(model, prompts, tokens), weights


def written(model, prompts, tokens, **options):
    """The ids, seconds up to the first token of all texts and after it, and the bytes held for texts at the end.

    Prompts are read at once, as the peer reads them; then nothing is written while others are still read.
    """
    from wenlu.inference.batch import Engine, Options
    from wenlu.inference.kernels import fast
    from wenlu.inference.text import Request

    with fast(model):
        chunk = sum(map(len, prompts))
        engine, began = Engine(model, options=Options(chunk=chunk, **options)), time.perf_counter()
        texts = [engine.add(Request(prompt, max_tokens=tokens)) for prompt in prompts]
        going, first, held = engine.step(), time.perf_counter(), engine.bytes
        assert all(text.ids for text in texts), "all prompts are read at once"
        while going:
            held, going = engine.bytes, engine.step()
    return [text.ids for text in texts], first - began, time.perf_counter() - first, held


def peer(folder: Path, format: str, kind: str = "CausalLM"):
    """What `ours` gives, by transformers' `generate`; kind: the end of its class's name, AutoModelFor…"""
    import transformers

    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder, dtype=DTYPES[format]).eval()
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
        return made[:, -len(ends) :].tolist(), ends[0] - began, ends[-1] - ends[0], 0

    return write


def in_turn(sides: dict, prompts: list, tokens: int, rounds: int) -> tuple[dict, dict, int]:
    """Of each side: the best seconds up to the first token and after it; the ids; the bytes that ours holds."""
    best, ids, held = {}, {}, 0
    for _ in range(rounds):
        for side, write in sides.items():
            ids[side], first, rest, new = write(prompts, tokens)
            held = max(held, new)
            known = best.get(side, (float("inf"), float("inf")))
            best[side] = (min(known[0], first), min(known[1], rest))
    return best, ids, held


def figures(best: dict, batch: int, length: int, tokens: int) -> dict:
    """Tokens a second of each side, and how many times the peer's ours are."""
    row = {}
    for side, (first, rest) in best.items():
        row[side] = {"decode": batch * (tokens - 1) / rest, "prefill": batch * length / first, "first_token_s": first}
    if "peer" in row:
        row["ratio"] = row["ours"]["decode"] / row["peer"]["decode"]
        row["prefill_ratio"] = row["ours"]["prefill"] / row["peer"]["prefill"]
    return row


def text_bytes(config, tokens: int, format: str) -> int:
    """Keys and values of a text of so many tokens."""
    width = 2 if format == "bf16" else 4
    return 2 * config.layers * config.kv_heads * config.head_dim * tokens * width


def reading(config, length: int) -> float:
    """Operations of reading a prompt: two for every weight of the blocks and token, attention, the head once."""
    from wenlu.models.size import hidden_weights

    attention = 2 * length * (length + 1) * config.layers * config.heads * config.head_dim
    return 2 * hidden_weights(config) * length + attention + 2 * config.dim * config.vocab


def measure(form: str, folder: Path, format: str, options, speed: float) -> list[dict]:
    from wenlu.hub.folder import load

    mine, weights = ours(folder, format)
    sides = {"ours": mine} | ({} if format == "int8" else {"peer": peer(folder, format)})
    config, products, rows = load(folder)[0].config, product_speed(format), []
    for length in PROMPTS:
        if length + options.tokens > config.context:
            continue
        for batch in BATCHES:
            prompts = prompts_of(batch, length, config.vocab)
            for write in sides.values() if length == PROMPTS[0] else ():
                write(prompts, 3)
            best, ids, held = in_turn(sides, prompts, options.tokens, options.rounds)
            row = {"form": form, "format": format, "batch": batch, "prompt": length, "weights": weights}
            row |= figures(best, batch, length, options.tokens)
            # A step reads the keys and values that are there: on the way, half of the new ones.
            read = text_bytes(config, length + options.tokens // 2, format)
            row |= bounded(row["ours"]["decode"], batch * speed / (weights + batch * read))
            row["prefill_bound"] = products * length / reading(config, length)
            row["prefill_reached"] = row["ours"]["prefill"] / row["prefill_bound"]
            row["bytes_a_text"] = held // batch
            row["bytes_needed"] = text_bytes(config, length + options.tokens - 1, format)
            if "peer" in row:
                row["same_texts"] = sum(a == b for a, b in zip(ids["ours"], ids["peer"], strict=True))
            rows.append(row)
            tell(f"{form} {format} batch {batch} prompt {length}", row)
    return rows


def bounded(found: float, bound: float) -> dict:
    """What would be the most, and the part of it that is reached."""
    return {"bound": bound, "reached": found / bound}


def tell(name: str, row: dict) -> None:
    told = f"; {row['ratio']:.2f} x the peer ({row['prefill_ratio']:.2f} reading)" if "peer" in row else ""
    print(f"{name}: {row['ours']['decode']:,.0f} tokens/s, {row['reached']:.0%} of what memory gives{told}", flush=True)


def texts(options, speed: float, place: Path) -> dict:
    rows = []
    for form in FORMS:
        folder = folder_of(form, place)
        for format in FORMATS:
            rows += measure(form, folder, format, options, speed)
    return {"shape": FORM, "products": {name: product_speed(name) for name in FORMATS}, "results": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    from importlib.metadata import version

    from decode_families import lstm, t5
    from decode_formats import formats
    from decode_start import first, process

    parts = {"texts": texts, "t5": t5, "lstm": lstm, "first": first, "process": process, "formats": formats}
    speed = memory_speed()
    print(f"memory: {speed / 1e9:.1f} GB/s", flush=True)
    facts = {"rounds": options.rounds, "tokens": options.tokens, "memory": speed}
    facts["peers"] = {"transformers": version("transformers")}
    for part in options.only:
        with tempfile.TemporaryDirectory() as place:
            found = parts[part](options, speed, Path(place))
        print(record.keep("decode" if part == "texts" else f"decode_{part}", {**facts, **found}))


if __name__ == "__main__":
    main()
