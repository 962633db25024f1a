"""What rounding weights costs: perplexity in bf16 and int8 beside f32, the same windows of the same texts.

stories260K on a text that it has written itself (greedy, `greedy.txt` of its folder), on the beginning of the test
part of WikiText-2, which is like nothing that it has learned. Only the ratio to f32 means anything.
"""

from pathlib import Path

import torch

import record
from decode import DTYPES, FORMATS

CHARACTERS = 300_000


def formats(options, speed: float, place: Path) -> dict:
    from wenlu.compress.quantize import quantize
    from wenlu.evaluation.perplexity import Settings, evaluate
    from wenlu.hub.folder import load

    folder = record.data_folder() / "stories260K"
    texts = {
        "its own": (folder / "greedy.txt").read_text(encoding="utf-8"),
        "WikiText-2, test": (record.data_folder() / "english" / "wikitext2_test.txt").read_text(encoding="utf-8"),
    }
    texts = {name: text[:CHARACTERS] for name, text in texts.items()}
    rows, exact = [], {}
    for format in FORMATS:
        model, tokenizer = load(folder, dtype=DTYPES.get(format, torch.float32))
        model = quantize(model) if format == "int8" else model
        weights = sum(tensor.nbytes for tensor in model.state_dict().values())
        for name, text in texts.items():
            found = evaluate(model, tokenizer, [text], Settings())
            perplexity = found.perplexity.value
            exact.setdefault(name, perplexity)
            row = {"text": name, "format": format, "tokens": found.tokens, "context": found.context}
            row |= {"perplexity": perplexity, "ratio": perplexity / exact[name], "weights": weights}
            rows.append(row)
            print(f"{format}, {name}: perplexity {perplexity:.4f}, {row['ratio']:.5f} of f32's", flush=True)
    return {"characters": CHARACTERS, "results": rows}
