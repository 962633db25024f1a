"""Decoding by the other families: a T5 beside Transformers' `generate`, an LSTM beside a plain loop over torch's own.

The T5 is of t5-small's shape, its weights random; what it reads are random ids. A step reads the decoder's weights
(but the matrices that read the encoder's states, used once), the head, and keys and values of what was written and
of the source; reading a source costs the products of the encoder. The LSTM has two layers of 1,024; the peer holds the
same weights in `nn.LSTM` and takes the best id of each step, so both write the same ids. Reading a prompt it multiplies
by one matrix of a layer token after token: where products are quick, reading that matrix each time is what bounds it,
unless a cache holds it.
"""

import time
from pathlib import Path

import torch
from torch import nn

from decode import (
    DTYPES,
    FORMATS,
    bounded,
    figures,
    in_turn,
    peer,
    product_speed,
    prompts_of,
    tell,
    text_bytes,
    written,
)

T5 = {"family": "t5", "dim": 512, "layers": 6, "heads": 8, "ffn": 2048, "context": 512, "vocab": 32128, "pad_id": 0}
LSTM = {"family": "lstm", "dim": 1024, "layers": 2, "vocab": 16000}
BATCHES, SOURCE, PROMPT = (1, 8), 64, 64


def random_model(form: dict, **more):
    from wenlu.models.build import build
    from wenlu.models.config import ModelConfig

    model, generator = build(ModelConfig(**form, **more), 0), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.05, generator=generator)
    return model.eval()


def in_format(model, format: str):
    from wenlu.compress.quantize import quantize

    return quantize(model) if format == "int8" else model.to(DTYPES[format])


def numbers(model, *parts: str) -> int:
    """Weights whose names hold one of these."""
    return sum(tensor.numel() for name, tensor in model.named_parameters() if any(part in name for part in parts))


def read_within(row: dict, tokens: int, seconds: float) -> dict:
    """The bound of reading prompts, and the part of it that is reached."""
    bound = tokens / seconds
    return {"prefill_bound": bound, "prefill_reached": row["ours"]["prefill"] / bound}


def t5(options, speed: float, place: Path) -> dict:
    from wenlu.hub.folder import load, save

    save(random_model(T5), None, place / "t5")
    rows, exact = [], load(place / "t5")[0]
    attention = 4 * SOURCE**2 * T5["layers"] * T5["dim"]
    operations = 2 * SOURCE * numbers(exact, "encoder.blocks", ".cross.kv") + attention
    operations += 2 * numbers(exact, "decoder.blocks", "embed.weight")
    for format in FORMATS:
        products = product_speed(format)
        model = in_format(load(place / "t5")[0], format)
        held = {n: tensor.nbytes for n, tensor in model.state_dict().items() if not n.startswith("encoder.")}
        weights = sum(size for name, size in held.items() if ".cross.kv" not in name)
        sides = {"ours": lambda prompts, tokens, model=model: written(model, prompts, tokens)}
        sides |= {} if format == "int8" else {"peer": peer(place / "t5", format, "Seq2SeqLM")}
        for batch in BATCHES:
            prompts = prompts_of(batch, SOURCE, T5["vocab"])
            for write in sides.values():
                write(prompts, 3)
            best, ids, held_for_texts = in_turn(sides, prompts, options.tokens, options.rounds)
            row = {"form": "t5-small", "format": format, "batch": batch, "prompt": SOURCE, "weights": weights}
            row |= figures(best, batch, SOURCE, options.tokens)
            source = text_bytes(model.config, SOURCE, format)
            read = source + text_bytes(model.config, options.tokens // 2, format)
            row |= bounded(row["ours"]["decode"], batch * speed / (weights + batch * read))
            row |= read_within(row, SOURCE, operations / products)
            row["bytes_a_text"] = held_for_texts // batch
            row["bytes_needed"] = source + text_bytes(model.config, options.tokens, format)
            if "peer" in ids:
                row["same_texts"] = sum(a == b for a, b in zip(ids["ours"], ids["peer"], strict=True))
            rows.append(row)
            tell(f"t5-small {format} batch {batch} source {SOURCE}", row)
    return {"shape": T5, "results": rows}


class PlainLSTM(nn.Module):
    """Embedding → nn.LSTM → Linear, with the weights of ours."""

    def __init__(self, model):
        super().__init__()
        dim, layers, vocab = LSTM["dim"], LSTM["layers"], LSTM["vocab"]
        self.embed, self.lstm = nn.Embedding(vocab, dim), nn.LSTM(dim, dim, layers, batch_first=True)
        self.head = nn.Linear(dim, vocab)
        with torch.no_grad():
            self.embed.weight.copy_(model.embed.weight)
            self.head.weight.copy_(model.lm_head.weight)
            self.head.bias.copy_(model.head_bias)
            for number, layer in enumerate(model.layers):
                getattr(self.lstm, f"weight_ih_l{number}").copy_(layer.w)
                getattr(self.lstm, f"weight_hh_l{number}").copy_(layer.u)
                getattr(self.lstm, f"bias_ih_l{number}").copy_(layer.b)
                getattr(self.lstm, f"bias_hh_l{number}").zero_()

    @torch.inference_mode()
    def write(self, prompts, tokens):
        began = time.perf_counter()
        states, kept = self.lstm(self.embed(torch.tensor(prompts)))
        best = self.head(states[:, -1]).argmax(-1)
        made, first = [best.tolist()], time.perf_counter()
        for _ in range(tokens - 1):
            states, kept = self.lstm(self.embed(best[:, None]), kept)
            best = self.head(states[:, -1]).argmax(-1)
            made.append(best.tolist())
        return [list(row) for row in zip(*made, strict=True)], first - began, time.perf_counter() - first, 0


def lstm(options, speed: float, place: Path) -> dict:
    rows, exact = [], random_model(LSTM, tied=False)
    for format in FORMATS:
        products = product_speed(format)
        model = in_format(random_model(LSTM, tied=False), format)
        weights = sum(t.nbytes for name, t in model.state_dict().items() if not name.startswith("embed"))
        sides = {"ours": lambda prompts, tokens, model=model: written(model, prompts, tokens)}
        if format != "int8":
            sides["peer"] = PlainLSTM(model).to(DTYPES[format]).eval().write
        for batch in BATCHES:
            prompts = prompts_of(batch, PROMPT, LSTM["vocab"])
            for write in sides.values():
                write(prompts, 3)
            best, ids, held = in_turn(sides, prompts, options.tokens, options.rounds)
            row = {"form": "LSTM", "format": format, "batch": batch, "prompt": PROMPT, "weights": weights}
            row |= figures(best, batch, PROMPT, options.tokens)
            width = 2 if format == "bf16" else 4
            state = 2 * LSTM["layers"] * LSTM["dim"] * width
            operations = 2 * PROMPT * numbers(exact, ".w", ".u") + 2 * LSTM["dim"] * LSTM["vocab"]
            seconds = max(batch * operations / products, PROMPT * width * numbers(exact, ".u") / speed)
            row |= read_within(row, batch * PROMPT, seconds)
            # The state is read and written anew at each step.
            row |= bounded(row["ours"]["decode"], batch * speed / (weights + 2 * batch * state))
            row["bytes_a_text"], row["bytes_needed"] = held // batch, state
            if "peer" in ids:
                row["same_texts"] = sum(a == b for a, b in zip(ids["ours"], ids["peer"], strict=True))
            rows.append(row)
            tell(f"LSTM {format} batch {batch} prompt {PROMPT}", row)
    return {"shape": LSTM, "results": rows}
