"""Decoding beside llama.cpp: one text, greedy, tokens a second of reading the prompt and of writing, by number format.

The Llama of `benchmarks/decode.py` (110 million random weights), prompts of random ids. Ours is `Engine` within `fast`,
the peer llama-cpp-python's `llama_decode` with its greedy sampler, on the file that `wenlu export` writes of the same
folder: f32, bf16, and our int8 (a scale for each row) beside its Q8_0 (one for every 32 numbers). Two threads each, in
turn within one process; on a processor with tiles (AMX) the peer leaves its own for Q8_0 out, for its version 0.3.36
ended the process there, by itself too. Each figure is the best of the rounds.
The peer keeps keys and values as it comes, in half
precision; ours has those of the weights (int8: f32). In f32 the ids of both are compared, the peer's made once more
with keys and values in f32: they must be equal up to the first near-tie (two best logits within 2e-4).

    pip install -c constraints.txt -e ".[peer]"        (compiles for minutes)
    python benchmarks/decode_llamacpp.py [--rounds 5] [--tokens 64]
"""

import argparse
import ctypes
import logging
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import llama_cpp
import torch

import record
from decode import FORM, PROMPTS, folder_of, memory_speed, ours, prompts_of

PAIRS = {"f32": "f32", "bf16": "bf16", "int8": "q8_0"}
"""Our format → the peer's."""
THREADS = 2
NEAR_TIE = 2e-4
PAUSE = 0.3
"""Seconds between the sides' turns, in which the threads of the one before fall asleep."""


class Peer:
    """A GGUF file in llama.cpp."""

    def __init__(self, file: Path, longest: int, exact: bool = False):
        form = llama_cpp.llama_model_default_params()
        # What it has for AMX ends the process (seen with Q8_0, version 0.3.36, without torch too).
        form.use_extra_bufts = b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), form)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = longest
        settings.n_threads = settings.n_threads_batch = THREADS
        settings.no_perf = True
        if exact:
            settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32
            settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        assert self.model and self.context, f"llama.cpp does not open {file}"
        self.sampler = llama_cpp.llama_sampler_init_greedy()

    def write(self, prompt: tuple[int, ...], tokens: int) -> tuple[list[int], float, float]:
        """The ids, seconds up to the first and after it."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        given, ids = (ctypes.c_int32 * len(prompt))(*prompt), []
        began = time.perf_counter()
        ids.append(self._next(given, len(prompt)))
        first, one = time.perf_counter(), (ctypes.c_int32 * 1)()
        while len(ids) < tokens:
            one[0] = ids[-1]
            ids.append(self._next(one, 1))
        return ids, first - began, time.perf_counter() - first

    def _next(self, ids, count: int) -> int:
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(ids, count)):
            raise RuntimeError("llama_decode failed")
        return llama_cpp.llama_sampler_sample(self.sampler, self.context, -1)

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self.sampler)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def compared(folder: Path, prompt: tuple[int, ...], ids: list[int], others: list[int]) -> dict:
    """Where two texts part, and how near the logits of the two tokens were there; RuntimeError where they were not."""
    from wenlu.hub.folder import load

    parted = next((step for step, (a, b) in enumerate(zip(ids, others, strict=True)) if a != b), None)
    if parted is None:
        return {"same": len(ids), "of": len(ids)}
    with torch.inference_mode():
        logits = load(folder)[0](torch.tensor([[*prompt, *ids[:parted]]]))[0, -1]
    gap = float(logits[ids[parted]] - logits[others[parted]])
    if abs(gap) > NEAR_TIE:
        raise RuntimeError(f"the texts part at step {parted}, where the logits lie {gap:.2g} apart")
    return {"same": parted, "of": len(ids), "gap": gap}


def measure(folder: Path, format: str, options, speed: float) -> list[dict]:
    """A row for each length of prompt."""
    from wenlu.hub.gguf import export

    longest = max(PROMPTS) + options.tokens
    file = folder.parent / f"{PAIRS[format]}.gguf"
    export(folder, file, PAIRS[format])
    mine, weights = ours(folder, format)
    peer, rows = Peer(file, longest), []

    def write(prompt, tokens):
        ids, first, rest, _ = mine([prompt], tokens)
        return ids[0], first, rest

    sides = {"ours": write, "peer": peer.write}
    for length in PROMPTS:
        (prompt,) = prompts_of(1, length, FORM["vocab"])
        row = {"format": format, "peer_format": PAIRS[format], "prompt": length, "weights": weights}
        row["file"] = file.stat().st_size
        ids, best = {}, dict.fromkeys(sides, (float("inf"), float("inf")))
        for turn in range(options.rounds + 1):
            for side, make in sides.items():
                time.sleep(PAUSE)
                ids[side], first, rest = make(prompt, options.tokens if turn else 4)
                if turn:  # the round before is to warm up
                    best[side] = (min(best[side][0], first), min(best[side][1], rest))
        for side, (first, rest) in best.items():
            row[side] = {"decode": (options.tokens - 1) / rest, "prefill": length / first}
        row["ratio"] = row["ours"]["decode"] / row["peer"]["decode"]
        row["prefill_ratio"] = row["ours"]["prefill"] / row["peer"]["prefill"]
        row["bound"] = speed / weights
        if format == "f32":
            exact = Peer(file, longest, exact=True)
            row["ids"] = compared(folder, prompt, ids["ours"], exact.write(prompt, options.tokens)[0])
            exact.close()
        rows.append(row)
        figures = "; ".join(
            f"{what} {row['ours'][what]:,.0f} against {row['peer'][what]:,.0f} tokens/s, {row[ratio]:.2f} x"
            for what, ratio in (("decode", "ratio"), ("prefill", "prefill_ratio"))
        )
        print(f"{format} prompt {length}: {figures} {row.get('ids', '')}", flush=True)
    peer.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
    system = llama_cpp.llama_print_system_info().decode()
    speed, rows = memory_speed(), []
    print(f"memory: {speed / 1e9:.1f} GB/s; llama.cpp: {system}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = place  # which product is quicker is found anew, not as it was on some busy day
        folder = folder_of("110M", Path(place))
        for format in PAIRS:
            rows += measure(folder, format, options, speed)
    facts = {"rounds": options.rounds, "tokens": options.tokens, "memory": speed, "shape": FORM}
    peers = {"llama-cpp-python": version("llama-cpp-python"), "system": system.strip()}
    record.keep("llamacpp", {**facts, "threads": THREADS, "peers": peers, "results": rows})


if __name__ == "__main__":
    main()
