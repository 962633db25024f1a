"""The peer of time_to_loss: nanoGPT's form in plain torch, with its README's recipe for a processor.

4 layers, 4 heads, 128 wide, context 64, batch 12, no biases, exact GELU, dropout 0, tied head, AdamW 1e-3 to 1e-4
(cosine, 100 warm-up steps, betas 0.9 and 0.99, decay 0.1 on matrices), gradient norm clipped at 1, 2,000 steps, eager.
Its evaluations during training are left out, since scoring does not count on either side.

    python benchmarks/nanogpt_form.py TRAIN.txt VOCABULARY.txt OUT.safetensors --steps 2000 --seed 0
"""

import argparse
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

CONTEXT, LAYERS, HEADS, DIM, BATCH = 64, 4, 4, 128, 12
STEPS, PEAK, LOWEST, WARMUP = 2000, 1e-3, 1e-4, 100


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn = nn.Linear(DIM, 3 * DIM, bias=False)
        self.c_proj = nn.Linear(DIM, DIM, bias=False)

    def forward(self, x):
        batch, seq, dim = x.shape
        q, k, v = (t.view(batch, seq, HEADS, -1).transpose(1, 2) for t in self.c_attn(x).split(DIM, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(batch, seq, dim))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(DIM, bias=False), nn.LayerNorm(DIM, bias=False)
        self.attn = Attention()
        self.mlp = nn.Sequential(nn.Linear(DIM, 4 * DIM, bias=False), nn.GELU(), nn.Linear(4 * DIM, DIM, bias=False))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    """ids [batch, seq ≤ 64] → logits [batch, seq, vocab]."""

    def __init__(self, vocab: int):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, DIM), nn.Embedding(CONTEXT, DIM)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(DIM, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_stream = name.endswith(("c_proj.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if into_stream else 0.02)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)


def learning_rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return PEAK * step / WARMUP
    return LOWEST + 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP))) * (PEAK - LOWEST)


def encode(text: str, vocabulary: str) -> np.ndarray:
    """Characters to their places in the sorted vocabulary, as uint16."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return np.searchsorted(np.frombuffer(vocabulary.encode("utf-32-le"), dtype=np.uint32), codes).astype(np.uint16)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("train")
    parser.add_argument("vocabulary")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    with open(options.train, encoding="utf-8", newline="") as file:
        train = file.read()
    with open(options.vocabulary, encoding="utf-8", newline="") as file:
        vocabulary = file.read()
    data = encode(train, vocabulary)
    model = NanoGPT(len(vocabulary))
    groups = [[p for p in model.parameters() if p.ndim >= 2], [p for p in model.parameters() if p.ndim < 2]]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}],
        lr=PEAK,
        betas=(0.9, 0.99),
    )
    began = time.time()
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps)
        starts = torch.randint(len(data) - CONTEXT, (BATCH,))
        x = torch.stack([torch.from_numpy(data[i : i + CONTEXT].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + CONTEXT].astype(np.int64)) for i in starts])
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            print(
                f"step {step} loss {loss.item():.4f} {(time.time() - began) / (step + 1) * 1e3:.1f} ms/step", flush=True
            )
    save_file(dict(model.named_parameters()), options.out)


if __name__ == "__main__":
    main()
