"""How soon a text begins, and how long a whole command takes that writes one.

First token: a prompt of 512 random ids to the 110M Llama in f32, by an engine that knows nothing, and by one that has
read another prompt with the same first 496 ids (its prefix cache); beside Transformers, which is given one token to
write. Whole process: `wenlu generate` of 64 greedy tokens against a script with Transformers, from the start of the
process to its end, three times each by turns after one turn that is not counted (files and compiled kernels are then
there). The least it can take is the start of Python with torch, and reading the weights 64 times.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import record
from decode import FORM, folder_of, peer, product_speed, prompts_of, reading

LENGTH, KNOWN, WRITTEN, TURNS = 512, 496, 64, 3
PROMPT = "Once upon a time, there was a"
SCRIPT = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt, tokens = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
model.generation_config.eos_token_id = None
ids = tokenizer(tokenizer.bos_token + prompt, add_special_tokens=False, return_tensors="pt")
made = model.generate(**ids, do_sample=False, max_new_tokens=int(tokens), pad_token_id=0)
print(tokenizer.decode(made[0, ids["input_ids"].shape[1]:]))
"""


def first(options, speed: float, place: Path) -> dict:
    """Seconds to the first token, and what bounds them: products when all is read, reading the weights when warm."""
    from wenlu.hub.folder import load
    from wenlu.inference.batch import Engine, Options
    from wenlu.inference.kernels import fast
    from wenlu.inference.text import Request

    folder = folder_of("110M", place)
    model, _ = load(folder)
    (known,), (prompt,) = prompts_of(1, LENGTH, FORM["vocab"]), prompts_of(1, LENGTH + 1, FORM["vocab"])
    prompt = (*known[:KNOWN], *prompt[KNOWN:LENGTH])
    found: dict[str, list[float]] = {"cold": [], "warm": [], "peer": []}
    ids = {}
    with fast(model):
        theirs = peer(folder, "f32")
        for side in ("cold", "warm", "peer") * (1 + max(3, options.rounds)):
            engine = Engine(model, options=Options(prefix_bytes=1 << 30))
            if side == "warm":
                drain(engine, Request(known, max_tokens=1))
            began = time.perf_counter()
            if side == "peer":
                (ids[side],), _, _, _ = theirs([prompt], 1)
            else:
                ids[side] = drain(engine, Request(prompt, max_tokens=1)).ids
            found[side].append(time.perf_counter() - began)
    assert ids["cold"] == ids["warm"], "a prefix changes no text"
    seconds = {side: min(times[1:]) for side, times in found.items()}
    weights = sum(t.nbytes for name, t in model.state_dict().items() if not name.startswith("embed"))
    cold = reading(model.config, LENGTH) / product_speed("f32")
    warm = max(weights / speed, reading(model.config, LENGTH - KNOWN) / product_speed("f32"))
    print(f"first token: cold {seconds['cold']:.3f} s, warm {seconds['warm']:.3f} s, peer {seconds['peer']:.3f} s")
    least = {"cold": cold, "warm": warm}
    reached = {side: least[side] / seconds[side] for side in least}
    facts = {"shape": FORM, "length": LENGTH, "known": KNOWN, "same": ids["cold"] == ids["peer"]}
    return {**facts, "seconds": seconds, "least": least, "reached": reached}


def drain(engine, request):
    text = engine.add(request)
    while engine.step():
        pass
    return text


def with_tokenizer(form: str, place: Path) -> Path:
    """stories260K, or a model of the large form with its tokenizer and as many ids."""
    small = folder_of("stories260K", place)
    if form == "stories260K":
        return Path(shutil.copytree(small, place / form))
    from wenlu.hub.folder import load, save
    from wenlu.models.build import build
    from wenlu.models.config import ModelConfig

    tokenizer = load(small)[1]
    model = build(ModelConfig(**{**FORM, "vocab": tokenizer.vocab}, tied=False), 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.02, generator=generator)
    save(model, tokenizer, place / form)
    return place / form


def process(options, speed: float, place: Path) -> dict:
    """Seconds of whole processes, three by turns; and the least that they can take."""
    rows = []
    environment = os.environ | {"PYTHONPATH": str(record.ROOT), "HF_HUB_OFFLINE": "1"}
    for form in ("stories260K", "86M"):
        folder = with_tokenizer(form, place)
        flags = ["--prompt", PROMPT, "--max-tokens", str(WRITTEN), "--temperature", "0", "--json"]
        lines = {
            "ours": [sys.executable, "-m", "wenlu.cli.main", "generate", str(folder), *flags],
            "peer": [sys.executable, "-c", SCRIPT, str(folder), PROMPT, str(WRITTEN)],
            "torch alone": [sys.executable, "-c", "import torch"],
        }
        seconds, said = {side: [] for side in lines}, {}
        for _ in range(1 + TURNS):
            for side, line in lines.items():
                began = time.perf_counter()
                done = subprocess.run(line, env=environment, capture_output=True, text=True)
                seconds[side].append(time.perf_counter() - began)
                assert done.returncode == 0, done.stderr[-2000:]
                said[side] = done.stdout
        weights = (folder / "model.safetensors").stat().st_size
        medians = {side: statistics.median(times[1:]) for side, times in seconds.items()}
        least = min(seconds["torch alone"]) + WRITTEN * weights / speed
        row = {"form": form, "seconds": {side: times[1:] for side, times in seconds.items()}, "median": medians}
        row |= {"ratio": medians["peer"] / medians["ours"], "least": least, "reached": least / medians["ours"]}
        row["tokens"] = written_by(said["ours"])
        rows.append(row)
        print(f"process {form}: {medians['ours']:.2f} s, Transformers {medians['peer']:.2f} s, least {least:.2f} s")
    return {"written": WRITTEN, "turns": TURNS, "results": rows}


def written_by(said: str) -> int:
    import json

    return json.loads(said)["samples"][0]["tokens"]
