"""The sections of docs/benchmarks.md on decoding: the kernels alone, whole texts beside Transformers and llama.cpp."""

from markdown_parts import table, where


def kernels(result: dict) -> list[str]:
    lines = [
        "## Products",
        "",
        "`python benchmarks/kernels.py`: GB/s of weights read, of many rows GFLOP/s; matrices out of cache, the",
        "quickest of each; torch's int8 is `F.linear` of weights made float on the way; packed: a second copy of them.",
    ]
    ways = ("wenlu", "torch", "oneDNN, packed", "int8pack", "a plain read")
    rows = []
    for row in result["results"]:
        shape = f"{row['rows']} × {row['in']} → {row['out']}"
        found = {way: f"{rate:.1f} GB/s" for way, rate in row.get("GB/s", {}).items()}
        found |= {way: f"{rate:,} GFLOP/s" for way, rate in row.get("GFLOP/s", {}).items()}
        figures = (found.get(way, "") for way in ways)
        rows.append((row["weights"], shape, *figures))
    return [*lines, *table("weights | shape | " + " | ".join(ways), rows), "", where(result["about"]), ""]


def _parts(row: dict, *names: str) -> list[str]:
    """What was measured of these; empty where nothing was."""
    forms = {"ratio": "{:.2f} ×", "prefill_ratio": "{:.2f} ×", "bound": "{:,.0f}"}
    return [forms.get(name, "{:.0%}").format(row[name]) if name in row else "" for name in names]


def _rows(result: dict) -> list[str]:
    """One row a shape of texts: speeds, what bounds them, memory."""
    rows = []
    for row in result["results"]:
        ours = row["ours"]
        speeds = f"{ours['decode']:,.0f}", *_parts(row, "bound", "reached", "ratio")
        reading = f"{ours['prefill']:,.0f}", *_parts(row, "prefill_reached", "prefill_ratio")
        memory = [f"{row[name] / 1e6:,.2f}" if name in row else "" for name in ("bytes_a_text", "bytes_needed")]
        first = f"{ours['first_token_s'] * 1000:,.0f} ms"
        rows.append(
            (row["form"], row["format"], f"{row['batch']} × {row['prompt']}", *speeds, *reading, first, *memory)
        )
    header = (
        "model | weights | texts × prompt | tokens/s | bound | reached | to the peer | prompts: tokens/s | reached | "
        "to the peer | first token | MB a text | needed"
    )
    return table(header, rows)


def decode(result: dict) -> list[str]:
    products = result.get("products", {})
    speeds = ", ".join(f"{speed / 1e9:,.0f} in {name}" for name, speed in products.items() if name != "int8")
    lines = [
        "## Decoding",
        "",
        f"`python benchmarks/decode.py`: {result['tokens']} tokens for each text, greedy, beside `generate` of",
        f"transformers {result['peers']['transformers']} as it comes; 110M: a Llama of random weights, 12 layers",
        f"of 768, vocabulary 32,000. A plain read of memory moved {result['memory'] / 1e9:.1f} GB/s: `bound` is",
        "what that would give if nothing but weights, keys and values were read. Prompts are bounded by products"
        + (f": large ones made {speeds} (10⁹ operations a second)." if speeds else "."),
        "Needed: keys and values of a text at its end; held: with room to grow.",
    ]
    return [*lines, *_rows(result), "", where(result["about"]), ""]


def decode_t5(result: dict) -> list[str]:
    lines = [
        "### T5",
        "",
        "`python benchmarks/decode.py --only t5`: t5-small's shape, random weights, beside `generate` of",
        f"transformers {result['peers']['transformers']}; {result['memory'] / 1e9:.1f} GB/s. Prompts are what the",
        "encoder reads.",
    ]
    return [*lines, *_rows(result), "", where(result["about"]), ""]


def decode_lstm(result: dict) -> list[str]:
    lines = [
        "### LSTM",
        "",
        "`python benchmarks/decode.py --only lstm`: two layers of 1,024, vocabulary 16,000, beside a plain loop over",
        f"torch's `nn.LSTM` with the same weights; {result['memory'] / 1e9:.1f} GB/s.",
    ]
    return [*lines, *_rows(result), "", where(result["about"]), ""]


def decode_first(result: dict) -> list[str]:
    seconds, least, reached = result["seconds"], result["least"], result["reached"]
    rows = [
        (name, f"{seconds[side] * 1000:,.0f} ms", f"{least[side] * 1000:,.0f} ms", f"{reached[side]:.0%}")
        for side, name in (("cold", "nothing known"), ("warm", f"the first {result['known']} tokens read before"))
    ]
    rows.append((f"transformers {result['peers']['transformers']}", f"{seconds['peer'] * 1000:,.0f} ms", "", ""))
    lines = [
        "### The first token",
        "",
        f"`python benchmarks/decode.py --only first`: a prompt of {result['length']} tokens, the 110M Llama in",
        "f32. Least: by the machine's measured speed of products, or of reading the weights once where that is longer.",
    ]
    return [*lines, *table("engine | first token | least | reached", rows), "", where(result["about"]), ""]


def decode_process(result: dict) -> list[str]:
    rows = []
    for row in result["results"]:
        median = row["median"]
        all_of = ", ".join(f"{one:.2f}" for one in row["seconds"]["ours"])
        peers = ", ".join(f"{one:.2f}" for one in row["seconds"]["peer"])
        cells = f"{median['ours']:.2f} s ({all_of})", f"{median['peer']:.2f} s ({peers})", f"{row['ratio']:.1f} ×"
        rows.append((row["form"], *cells, f"{row['least']:.2f} s", f"{row['reached']:.0%}"))
    lines = [
        "### A whole process",
        "",
        f"`python benchmarks/decode.py --only process`: `wenlu generate` of {result['written']} greedy tokens, from",
        "the start of the process to its end, and a script that does the same with transformers",
        f"{result['peers']['transformers']}; medians of {result['turns']} by turns.",
        "The least: Python's start with torch alone, and reading the weights once a token.",
    ]
    header = "model | `wenlu generate` | transformers | ratio | least | reached"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def decode_formats(result: dict) -> list[str]:
    rows = [
        (row["text"], row["format"], f"{row['perplexity']:,.3f}", f"{row['ratio']:.4f}", f"{row['weights'] / 1e6:.2f}")
        for row in sorted(result["results"], key=lambda row: row["text"])
    ]
    lines = [
        "### What rounding costs",
        "",
        "`python benchmarks/decode.py --only formats`: stories260K on a text of its own and on one like none that it",
        f"has learned ({result['characters']:,} characters), where its perplexity says nothing but by its ratio to",
        "f32's.",
    ]
    header = "text | weights | perplexity | ratio to f32 | MB of weights"
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def llamacpp(result: dict) -> list[str]:
    tiles = "AMX_INT8 = 1" in result["peers"]["system"]
    lines = [
        "## Decoding beside llama.cpp",
        "",
        f"`python benchmarks/decode_llamacpp.py`: one text, {result['tokens']} tokens, greedy, {result['threads']}",
        f"threads each, in turn, the best of {result['rounds']} rounds; the 110M Llama above. Peer: llama-cpp-python",
        f"{result['peers']['llama-cpp-python']}, compiled for this machine, keys and values in half precision (as it",
        "comes), with the file that `wenlu export` writes. Same ids: those of both in f32, up to the first near-tie.",
        f"A plain read of memory moved {result['memory'] / 1e9:.1f} GB/s.",
        *(["What it has for tiles (AMX) is left out: with Q8_0 it ended the process."] if tiles else []),
    ]
    rows = []
    for row in result["results"]:
        ours, peer, ids = row["ours"], row["peer"], row.get("ids")
        same = f"{ids['same']} of {ids['of']}" if ids else ""
        decode = f"{ours['decode']:,.0f}", f"{peer['decode']:,.0f}", f"{row['ratio']:.2f} ×"
        prefill = f"{ours['prefill']:,.0f}", f"{peer['prefill']:,.0f}", f"{row['prefill_ratio']:.2f} ×"
        rows.append((f"{row['format']}, {row['peer_format']}", f"{row['prompt']}", *decode, *prefill, same))
    header = (
        "weights: ours, llama.cpp's | prompt | ours, tokens/s | llama.cpp | ratio | "
        "reading: ours | llama.cpp | ratio | same ids"
    )
    return [*lines, *table(header, rows), "", where(result["about"]), ""]
