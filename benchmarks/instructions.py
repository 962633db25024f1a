"""A model that follows short instructions in two languages, made here, for searches among prompts to be tried on.

Eight small tasks over real sentences, four in English (is a review good or bad; is a sentence of a review an opinion
or a fact; is it long; does it hold a comma) and four in Chinese (which novel a sentence is from; verse or prose; is it
long; does somebody ask), each asked for in many wordings, some with examples before the question. The same sentence is
asked several things, so that the model must read the instruction. A tenth of all sentences, by their hash, is kept out
of the model's training: of them are the examples that prompts are searched and tested on.

    python benchmarks/instructions.py OUT             makes OUT/{text,talks,examples}, trains OUT/base and OUT/model

A base of 1,000 steps (4.7 million parameters), then two epochs of 24,000 talks: about half an hour of one core.
"""

import argparse
import hashlib
import io
import json
import lzma
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import record

LONG_ENGLISH, LONG_CHINESE = 110, 24
"""Characters from which on a sentence is long."""

WORDINGS = {
    "sentiment": """Is this review good or bad?|Good or bad?|Judge the review: good or bad.|Classify: good, bad.
        Decide whether it is good or bad:|Tell me whether the critic liked it (good) or not (bad).
        Answer good or bad.""",
    "opinion": """Is this an opinion or a fact?|Opinion or fact?|Say whether it is opinion or fact.
        Answer opinion or fact.
        Classify: opinion, fact.|Does the writer judge (opinion) or report (fact)?|Decide: opinion or fact.""",
    "length": """Is the sentence long or short?|Long or short?|Answer long or short.|Judge its length: long, short.
        Tell me whether this is a long or a short sentence.|Classify: long, short.""",
    "comma": """Does it have a comma? yes or no|Is there a comma? yes, no|A comma in it: yes or no?
        Comma? Answer yes or no.|Look for a comma and answer yes or no.|Classify by comma: yes, no.""",
    "source": """这句话出自哪部小说？|出自哪部书？|判断出处：红楼梦、水浒传、西游记。|下面的句子是哪部名著里的？
        请回答书名：红楼梦、水浒传或西游记。|哪一部小说？|说出这句话的出处。""",
    "verse": """这是诗还是文？|诗还是文？|判断体裁：诗、文。|请回答诗或文。|下面这句是诗句（诗）还是散文（文）？
        体裁是什么？诗、文""",
    "long": """这句话长还是短？|长还是短？|判断长短：长、短。|请回答长或短。|下面的句子是长句（长）还是短句（短）？""",
    "asks": """这句话在问什么吗？是、否|是问句吗？|有没有人提问？是或否|判断是否问句：是、否。
        请回答是或否：这是一个问题吗？""",
}
"""Of each task, one after the other."""
FORMS = ("{ask}\n{text}", "{text}\n{ask}", "{ask} {text}", "{ask}\n\n{text}", "{text} {ask}")


def tenth(text: str) -> int:
    """Which tenth of all a text belongs to, by its hash."""
    return hashlib.sha256(text.encode()).digest()[0] * 10 // 256


def labelled() -> dict[str, list[tuple[str, str]]]:
    """(sentence, answer) of each task."""
    folder = record.data_folder()
    reviews, subjective = [], []
    for kept, archive, names in (
        (reviews, "sentence_polarity", {"rt-polarity.pos": "good", "rt-polarity.neg": "bad"}),
        (subjective, "subjectivity", {"quote.tok.gt9.5000": "opinion", "plot.tok.gt9.5000": "fact"}),
    ):
        with zipfile.ZipFile(folder / "classification" / f"{archive}.zip") as inside:
            for name, label in names.items():
                member = next(m for m in inside.namelist() if m.endswith(name))
                lines = io.TextIOWrapper(inside.open(member), encoding="latin-1").read().splitlines()
                kept += [(line.strip(), label) for line in lines if 20 < len(line.strip()) < 240]
    prose = []
    for book in ("红楼梦", "水浒传", "西游记"):
        text = lzma.decompress((folder / "chinese" / f"{book}.txt.xz").read_bytes()).decode("utf-8")
        sentences = re.findall(r"[^。！？\s][^。！？\n]{5,50}[。！？]", re.sub(r"[ \u3000]+", "", text))
        prose += [(sentence, book) for sentence in sentences]
    verse = poems(folder / "chinese" / "chinese_poetry.tar.xz")
    chance = random.Random(0)
    english = [sentence for sentence, _ in reviews + subjective]
    chinese = [sentence for sentence, _ in prose]
    prose_lines = chance.sample(chinese, min(len(chinese), len(verse)))
    return {
        "sentiment": reviews,
        "opinion": subjective,
        "length": [(s, "long" if len(s) > LONG_ENGLISH else "short") for s in english],
        "comma": [(s, "yes" if "," in s else "no") for s in english],
        "source": prose,
        "verse": [(s, "诗") for s in verse] + [(s, "文") for s in prose_lines],
        "long": [(s, "长" if len(s) > LONG_CHINESE else "短") for s in chinese],
        "asks": [(s, "是" if s.endswith("？") else "否") for s in chinese],
    }


def poems(file: Path) -> list[str]:
    """Lines of Tang and Song verse, two clauses each."""
    lines = []
    with tarfile.open(file) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".json"):
                found = json.load(archive.extractfile(member))
                for poem in found if isinstance(found, list) else []:
                    for line in poem.get("paragraphs", []) if isinstance(poem, dict) else []:
                        if 8 <= len(line) <= 50:
                            lines.append(line)
    return sorted(set(lines))


def balanced(rows: list[tuple[str, str]], number: int, chance: random.Random) -> list[tuple[str, str]]:
    """So many rows, equally many of each answer where there are as many."""
    by_answer: dict[str, list[tuple[str, str]]] = {}
    for row in dict(rows).items():
        by_answer.setdefault(row[1], []).append(row)
    each = number // len(by_answer)
    chosen = [row for of_answer in by_answer.values() for row in chance.sample(of_answer, min(each, len(of_answer)))]
    chance.shuffle(chosen)
    return chosen


def make(out: Path, number: int) -> None:
    """The text that the base model reads, the talks that it is tuned on, and the examples for prompts."""
    chance, tasks = random.Random(1), labelled()
    (out / "examples").mkdir(parents=True, exist_ok=True)
    talks, text = [], []
    for name, rows in tasks.items():
        train = [row for row in rows if tenth(row[0]) < 9]
        kept = [row for row in rows if tenth(row[0]) == 9]
        text += [sentence for sentence, _ in train]
        wordings = [wording.strip() for wording in re.split(r"[|\n]", WORDINGS[name])]
        for sentence, answer in balanced(train, number, chance):
            form, ask = chance.choice(FORMS), chance.choice(wordings)
            shown = chance.choice((0, 0, 0, 0, 1))
            before = []
            for other, right in chance.sample(train, shown):
                before += [
                    {"role": "user", "content": form.format(ask=ask, text=other)},
                    {"role": "assistant", "content": right},
                ]
            asked = {"role": "user", "content": form.format(ask=ask, text=sentence)}
            talks.append({"messages": [*before, asked, {"role": "assistant", "content": answer}]})
        with open(out / "examples" / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for sentence, answer in balanced(kept, 1200, random.Random(2)):
                file.write(json.dumps({"text": sentence, "answer": answer}, ensure_ascii=False) + "\n")
    chance.shuffle(talks)
    with open(out / "talks.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(talk, ensure_ascii=False) + "\n" for talk in talks)
    text = sorted(set(text))
    chance.shuffle(text)
    (out / "text.txt").write_text("\n".join(text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--talks", type=int, default=3000, help="of each task (default: %(default)s)")
    parser.add_argument("--base-steps", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--only-data", action="store_true")
    arguments = parser.parse_args()
    make(arguments.out, arguments.talks)
    if arguments.only_data:
        return
    wenlu = [sys.executable, "-m", "wenlu.cli.main"]
    base, model = str(arguments.out / "base"), str(arguments.out / "model")
    size = ["--model.dim", "192", "--model.layers", "4", "--model.heads", "6", "--model.no-tied"]
    train = [*wenlu, "train", str(arguments.out / "text.txt"), "--out", base, "--steps", str(arguments.base_steps)]
    subprocess.run([*train, *size, "--training.start", "bigrams"], check=True)
    tune = [*wenlu, "finetune", base, str(arguments.out / "talks.jsonl"), "--out", model, "--task", "chat"]
    tune += ["--epochs", str(arguments.epochs), "--context", "320", "--training.batch", "16"]
    tune += ["--optimizer.lr", "0.002"]
    subprocess.run(tune, check=True)


if __name__ == "__main__":
    main()
