"""The sections of docs/benchmarks.md on statistics: simulated searches among prompts, metrics beside references."""

from markdown_parts import table, where


def selection(result: dict) -> list[str]:
    first = next(iter(result["results"].values()))
    setting = first["setting"]
    lines = [
        "## Choosing among prompts, simulated",
        "",
        f"`python benchmarks/selection.py`: {first['searches']:,} searches of each kind, `search.select` and",
        f"`wenlu.metrics.verdict` on the test items. {setting['candidates']} prompts, the first the baseline;",
        f"{setting['search']} search, {setting['select']} select and {setting['test']} test items; a budget of",
        f"{setting['budget']:,} scores for search and select (a table of all would take",
        f"{setting['candidates'] * (setting['search'] + setting['select']):,}); {setting['keep']} finalists and the",
        "baseline. Right or wrong from a logistic model; all prompts share the items' difficulty (standard deviation",
        f"{result['difficulty']:g}); accuracy {setting['base']:.0%} over all items. Groups share half the variance of",
        f"the difficulty and have a liking of their own for each prompt (standard deviation {result['liking']:g}).",
    ]
    rows, luck = [], []
    for name, row in result["results"].items():
        count = row["searches"]
        said = (f"{row['words'][word] / count:.1%}" for word in ("better", "no worse", "undecided", "worse"))
        better = (f"{row[key] / count:.1%}" if row["setting"]["planted"] else "" for key in ("chosen", "found"))
        others = (f"{row[key] / count:.1%}" for key in ("baseline", "without a test part"))
        rows.append((name, *said, *better, *others))
        luck.append((name, *(f"{row[key]:.3f}" for key in ("apparent", "out of bag", "smallest"))))
    header = (
        "prompts | better | no worse by more than 0.02 | undecided | worse | planted chosen | planted found better | "
        "baseline kept | best of all called better on the items that chose it"
    )
    lines += table(header, rows)
    lines += ["", f"The best of all on the {setting['select']} select items, means over searches:"]
    lines += table("prompts | its accuracy there | out-of-bag estimate | a test part shows differences from", luck)
    return [*lines, "", where(result["about"]), ""]


def metrics(result: dict) -> list[str]:
    lines = [
        "## Metrics beside their references",
        "",
        "`pytest -m slow tests/metrics/test_references.py`: random cases, English and Chinese.",
        "BLEU and chrF are sacreBLEU's own, so what is compared there is the choice of its tokenizer.",
    ]
    rows = [
        (name, row["reference"], f"{row['cases']:,}", f"{row['largest difference']:.1g}")
        for name, row in result["results"].items()
    ]
    return [*lines, *table("metric | reference | cases | largest difference", rows), ""]
