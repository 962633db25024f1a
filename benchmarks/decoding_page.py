"""The sections of docs/benchmarks.md on decoding: the kernels alone, whole texts beside Transformers and llama.cpp."""

from markdown_parts import table, where


def kernels(result: dict) -> list[str]:
    lines = [
        "## Products of few rows",
        "",
        "`python benchmarks/kernels.py`: GB/s of weights read, matrices out of cache, the quickest of each;",
        "torch's int8 is `F.linear` of weights made float on the way; packed: oneDNN on a second copy of the weights.",
    ]
    ways = ("wenlu", "torch", "oneDNN, packed", "int8pack", "a plain read")
    rows = []
    for row in result["results"]:
        shape = f"{row['rows']} × {row['in']} → {row['out']}"
        figures = (f"{row['GB/s'][way]:.1f}" if way in row["GB/s"] else "" for way in ways)
        rows.append((row["weights"], shape, *figures))
    return [*lines, *table("weights | shape | " + " | ".join(ways), rows), "", where(result["about"]), ""]


def decode(result: dict) -> list[str]:
    lines = [
        "## Decoding",
        "",
        f"`python benchmarks/decode.py`: {result['tokens']} tokens for each text, greedy, beside `generate` of",
        f"transformers {result['peers']['transformers']} as it comes; 110M: a Llama of random weights, 12 layers",
        f"of 768, vocabulary 32,000. A plain read of memory moved {result['memory'] / 1e9:.1f} GB/s: `bound` is",
        "what that would give if nothing but weights, keys and values were read.",
    ]
    rows = []
    for row in result["results"]:
        ours = row["ours"]
        ratios = (f"{row[name]:.2f} ×" if name in row else "" for name in ("ratio", "prefill_ratio"))
        size = f"{row['batch']} × {row['prompt']}"
        speeds = f"{ours['decode']:,.0f}", f"{row['bound']:,.0f}", f"{row['reached']:.0%}"
        first = f"{ours['first_token_s'] * 1000:,.0f} ms"
        rows.append((row["form"], row["format"], size, *speeds, *ratios, first, f"{row['bytes_a_text'] / 1e6:,.2f}"))
    header = (
        "model | weights | texts × prompt | tokens/s | bound | reached | to Transformers | reading prompts | "
        "first token | MB a text"
    )
    return [*lines, *table(header, rows), "", where(result["about"]), ""]


def llamacpp(result: dict) -> list[str]:
    lines = [
        "## Decoding beside llama.cpp",
        "",
        f"`python benchmarks/decode_llamacpp.py`: one text, {result['tokens']} tokens, greedy, {result['threads']}",
        f"threads each, in turn, the best of {result['rounds']} rounds; the 110M Llama above. Peer: llama-cpp-python",
        f"{result['peers']['llama-cpp-python']}, compiled for this machine, keys and values in half precision (as it",
        "comes), with the file that `wenlu export` writes. Same ids: those of both in f32, up to the first near-tie.",
        f"A plain read of memory moved {result['memory'] / 1e9:.1f} GB/s.",
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
