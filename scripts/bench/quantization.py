"""What quantization changes: a model in each type, compared with its own F16 on the same texts.

    python scripts/bench/quantization.py models/demo.gguf
    python scripts/bench/quantization.py ./my-finetune --documents documents.txt --questions questions.txt

SOURCE is a checkpoint's folder or a GGUF. A GGUF that is quantized already, as the demo model is, is read back into
F16 first: what its own quantization cost is in all rows, and only what comes on top shows. The texts are those of
this repository, or the lines of files. Needs SciPy, which the extra `analysis` brings.

The figures say how much changes, not whether it gets worse: that takes questions whose answers are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import gguf
import numpy as np
from scipy.stats import spearmanr

import q3e_local
from q3e_local.convert import QUANTIZATIONS, convert, quantize
from q3e_local.embedding.request import DIM_MIN
from q3e_local.errors import OptionError, Q3EError
from q3e_local.gguf.header import read_header
from q3e_local.vectors import Vectors, finish, scores, top_k

ROOT = Path(__file__).parents[2]
REFERENCE = "f16"
TYPES = ("q8_0", "q6_k", "q5_k_m", "q4_k_m")
SHORTEST = 40  # characters of a paragraph; headings are shorter


@dataclass(frozen=True)
class Texts:
    """What is embedded: documents bare, questions with the default instruction."""

    documents: Sequence[str]
    questions: Sequence[str]


@dataclass(frozen=True)
class Figures:
    """What changed in a type of file at a dim.

    Agreements are shares of each question's first k documents, 0 to 1: of those that F16 finds at this dim, and of
    those that it finds with all numbers. `spearman` is over the similarities of all questions with all documents, the
    cosines are over all texts; both are against F16 at this dim.
    """

    quantization: str
    size_bytes: int
    dim: int
    agreement: float
    agreement_with_whole: float
    spearman: float
    mean_cosine: float
    least_cosine: float


def of_repository() -> Texts:
    """The documents and questions of scripts/bench/understanding, and those of tests/corpus and examples/notes."""
    lines = (
        (ROOT / "scripts" / "bench" / "understanding" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    )
    labelled = [json.loads(line) for line in lines]
    pages = [*sorted((ROOT / "tests" / "corpus").glob("*.md")), *sorted((ROOT / "examples" / "notes").glob("*.md"))]
    paragraphs = [part.strip() for page in pages for part in page.read_text(encoding="utf-8").split("\n\n")]
    table = (ROOT / "tests" / "corpus" / "questions.tsv").read_text(encoding="utf-8").splitlines()
    return Texts(
        [line["text"] for line in labelled] + [part for part in paragraphs if len(part) >= SHORTEST],
        [line[side] for side in ("same", "across") for line in labelled] + [line.split("\t")[2] for line in table],
    )


def lines_of(path: Path) -> list[str]:
    """The lines of a file that are not blank."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def as_f16(source: Path, target: Path) -> None:
    """Write a GGUF once more with its matrices in F16; vectors stay F32, and so do all keys but the file's type."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            kind, *item = field.types
            writer.add_key_value(name, field.contents(), kind, item[0] if item else None)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, weights.astype(np.float16 if weights.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def is_quantized(source: Path) -> bool:
    """Whether a GGUF has weights of fewer than 16 bits. Raises ModelFileError for what is none."""
    return bool({tensor.type_name for tensor in read_header(source).tensors.values()} - {"F32", "F16", "BF16"})


def vectors_of(path: Path, texts: Texts) -> tuple[Vectors, Vectors]:
    """The vectors of documents and questions, both with all numbers and of length 1."""
    with q3e_local.load(path) as embedder:
        return embedder.embed_documents(texts.documents).vectors, embedder.embed_queries(texts.questions).vectors


def agreement(found: Vectors, expected: Vectors, k: int) -> float:
    """The mean share of the first k columns of each row that are among its first k in the other, 0 to 1."""
    pairs = zip(top_k(found, k)[0], top_k(expected, k)[0], strict=True)
    return float(np.mean([len(set(ours) & set(theirs)) / k for ours, theirs in pairs]))


def figures(
    quantization: str,
    size_bytes: int,
    found: tuple[Vectors, Vectors],
    reference: tuple[Vectors, Vectors],
    dims: Sequence[int],
    k: int,
) -> Iterator[Figures]:
    """What changed between two models' vectors of documents and of questions, at each dim."""
    whole = scores(reference[1], reference[0])
    for dim in dims:
        (documents, questions), (of_f16, asked_of_f16) = (
            tuple(finish(vectors, dim) for vectors in pair) for pair in (found, reference)
        )
        ours, theirs = scores(questions, documents), scores(asked_of_f16, of_f16)
        cosines = np.concatenate([(documents * of_f16).sum(axis=1), (questions * asked_of_f16).sum(axis=1)])
        yield Figures(
            quantization,
            size_bytes,
            dim,
            agreement(ours, theirs, k),
            agreement(ours, whole, k),
            float(spearmanr(ours.ravel(), theirs.ravel()).statistic),
            float(cosines.mean()),
            float(cosines.min()),
        )


def table(rows: Sequence[Figures], texts: Texts, k: int) -> Iterator[str]:
    """The figures as lines of Markdown."""
    yield f"{len(texts.documents)} documents, {len(texts.questions)} questions."
    yield ""
    yield f"| type | MB | dim | agreement@{k} | with F16 whole | Spearman | cosine, mean | least |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        shares = f"{row.agreement:.3f} | {row.agreement_with_whole:.3f} | {row.spearman:.4f}"
        cosines = f"{row.mean_cosine:.4f} | {row.least_cosine:.4f}"
        yield f"| {row.quantization} | {row.size_bytes / 1e6:.1f} | {row.dim} | {shares} | {cosines} |"


def measured(
    source: Path, folder: Path, quantizations: Sequence[str], dims: Sequence[int], texts: Texts, k: int
) -> list[Figures]:
    """The figures of all types, whose files are made in this folder. Raises Q3EError."""
    if source.is_file() and is_quantized(source):
        click.echo(f"{source.name} is quantized already: its weights are read back into F16 first", err=True)
        as_f16(source, folder / "read-back.gguf")
        source = folder / "read-back.gguf"
    make = convert if source.is_dir() else quantize
    rows: list[Figures] = []
    reference: tuple[Vectors, Vectors] | None = None
    for quantization in (REFERENCE, *quantizations):
        path = folder / f"{quantization}.gguf"
        n_embd = make(source, path, quantization).n_embd
        if dims and max(dims) > n_embd:
            raise OptionError(f"dim must be between {DIM_MIN} and {n_embd} for this model, got {max(dims)}")
        chosen = dims or [n_embd >> halvings for halvings in range(4) if n_embd >> halvings >= DIM_MIN]
        found = vectors_of(path, texts)
        reference = reference or found
        rows += figures(quantization, path.stat().st_size, found, reference, chosen, k)
        click.echo(f"{quantization}: done", err=True)
    return rows


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--type", "types", type=click.Choice([each for each in QUANTIZATIONS if each != REFERENCE]), multiple=True,
    help="Of a file; may be repeated. [default: q8_0, q6_k, q5_k_m, q4_k_m]",
)  # fmt: skip
@click.option(
    "-d",
    "--dim",
    "dims",
    type=click.IntRange(DIM_MIN),
    multiple=True,
    help="May be repeated. [default: all, 1/2, 1/4, 1/8]",
)
@click.option("--documents", type=click.Path(path_type=Path, exists=True), help="A text on each line.")
@click.option("--questions", type=click.Path(path_type=Path, exists=True), help="A question on each line.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="First documents that are compared.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines.")
def main(
    source: Path,
    types: tuple[str, ...],
    dims: tuple[int, ...],
    documents: Path | None,
    questions: Path | None,
    k: int,
    as_json: bool,
) -> None:
    """Print what quantization changes, as a table in Markdown."""
    if (documents is None) != (questions is None):
        raise click.UsageError("give --documents and --questions, or neither")
    own = documents is not None and questions is not None
    texts = Texts(lines_of(documents), lines_of(questions)) if own else of_repository()
    if len(texts.documents) <= k or not texts.questions:
        raise click.UsageError(
            f"there are {len(texts.documents)} documents and {len(texts.questions)} questions; the first {k} of a "
            f"question can only change among {k + 1} documents or more"
        )
    try:
        with TemporaryDirectory(prefix="q3e-quantization-") as folder:
            rows = measured(source, Path(folder), types or TYPES, dims, texts, k)
    except Q3EError as error:
        raise click.ClickException(str(error)) from None
    for line in (json.dumps(asdict(row)) for row in rows) if as_json else table(rows, texts, k):
        click.echo(line)


if __name__ == "__main__":
    main()
