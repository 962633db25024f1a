"""The peer of the LSTM benchmark: Embedding → LSTM → Linear with Adam and cross-entropy, epoch after epoch.

The structure that introductions to language models print, made to run (an LSTM returns a pair, so it cannot stand in a
`Sequential`): windows of 64 characters, shuffled by a DataLoader, batch 32, learning rate 1e-3, nothing scheduled.

    python benchmarks/article_form.py TRAIN.txt VOCABULARY.txt OUT.safetensors --epochs 2 --seed 0
"""

import argparse

import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nanogpt_form import encode

CONTEXT, BATCH, DIM, LAYERS, RATE = 64, 32, 128, 1, 1e-3


class LanguageModel(nn.Module):
    """ids [batch, seq] → logits [batch, seq, vocab]."""

    def __init__(self, vocab: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab, DIM)
        self.lstm = nn.LSTM(DIM, DIM, LAYERS, batch_first=True)
        self.linear = nn.Linear(DIM, vocab)

    def forward(self, ids):
        outputs, _ = self.lstm(self.embedding(ids))
        return self.linear(outputs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("train")
    parser.add_argument("vocabulary")
    parser.add_argument("out")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    with open(options.train, encoding="utf-8", newline="") as file:
        train = file.read()
    with open(options.vocabulary, encoding="utf-8", newline="") as file:
        vocabulary = file.read()
    ids = torch.from_numpy(encode(train, vocabulary).astype("int64"))
    windows = (len(ids) - 1) // CONTEXT
    inputs = ids[: windows * CONTEXT].view(-1, CONTEXT)
    targets = ids[1 : windows * CONTEXT + 1].view(-1, CONTEXT)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=BATCH, shuffle=True)
    model = LanguageModel(len(vocabulary))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for epoch in range(options.epochs):
        for x, y in loader:
            loss = criterion(model(x).flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1} loss {loss.item():.4f}", flush=True)
    save_file(dict(model.named_parameters()), options.out)


if __name__ == "__main__":
    main()
