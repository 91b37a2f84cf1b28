"""How fast our kernels compute products and attention beside llama.cpp's own: one thread, CPU time, in turns.

    python scripts/bench/kernels.py [--type Q4_K] [--tokens 128,512] [--variant avx2] [--markdown]

The best of several rounds counts, so that whatever else the machine does matters little. In each round a loop of the
variant's instructions over registers alone runs, too: what share of its speed a kernel reaches is the column "of
peak". It needs a C++ compiler; without one the column is missing.
"""

from __future__ import annotations

import ctypes
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

import q3e_local
from q3e_local import machine
from q3e_local.llama.kernels import in_use, operation
from q3e_local.llama.kernels.proof import WEIGHTS

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
sys.path.insert(0, str(KERNELS))
import build  # noqa: E402  (in no package)

# Rows and depth of products of 0.6B (attention's output, gate, down) and of 4B (gate, down).
SHAPES = ((1024, 2048), (3072, 1024), (1024, 3072), (9728, 2560), (2560, 9728))
HEADS = {"0.6B": 16, "4B": 32}  # of queries
N_KEY_HEADS, WIDTH = 8, 128
N_QUERIES = 512
N_KEYS = (512, 2048, 8192)
PACKED = ((16, 32), (4, 128))  # texts of so many tokens
QUICK = 16  # what --quick divides sizes by

Mask = NDArray[np.float16]


@dataclass(frozen=True)
class Work:
    """One operation to time: in which loop its limit is, how many multiplications and additions it has."""

    name: str
    kind: str
    n_operations: float
    compute: Callable[[operation.Watch], object]


class Stopwatch:
    """The CPU seconds between entering and leaving, of all threads."""

    seconds = math.inf

    def __enter__(self) -> None:
        self._begin = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._begin


def products(names: tuple[str, ...], n_tokens: list[int], shapes: tuple[tuple[int, int], ...]) -> Iterator[Work]:
    """A product for each type, shape and number of tokens."""
    random = np.random.default_rng(0)
    for name in names:
        for n_rows, depth in shapes:
            # Some rows again and again: quantizing takes longer than a product, and no speed depends on the numbers.
            few = operation.quantized(random.standard_normal((16, depth), np.float32), WEIGHTS[name])
            weights = np.resize(few, (n_rows, few.shape[1]))
            for n in n_tokens:
                tokens = random.standard_normal((n, depth), np.float32)
                yield Work(
                    f"{name} {n_rows:,} x {depth:,}, {n:,} tokens",
                    "products",
                    2.0 * n_rows * depth * n,
                    lambda watch, w=weights, kind=WEIGHTS[name], t=tokens: operation.product(w, kind, t, watch=watch),
                )


def attentions(shrunk: int = 1) -> Iterator[Work]:
    """Attention of the last queries of a text to all of it, and of short texts that are computed together."""
    for model, n_heads in HEADS.items():
        for n_keys in N_KEYS:
            n, m = N_QUERIES // shrunk, n_keys // shrunk
            yield _attention(f"{model}, {n:,} queries of {m:,} keys", n_heads, causal(n, m))
        for n_texts, length in PACKED:
            n = length // shrunk
            yield _attention(f"{model}, {n_texts} texts of {n:,} tokens", n_heads, packed(n_texts, n))


def causal(n_queries: int, n_keys: int) -> Mask:
    """Each of the last queries sees the keys before it and its own."""
    return np.where(np.tri(n_queries, n_keys, n_keys - n_queries, dtype=bool), 0, -np.inf).astype(np.float16)


def packed(n_texts: int, length: int) -> Mask:
    """The same for several texts, each of which sees itself alone."""
    text = np.repeat(np.arange(n_texts), length)
    return np.where(text[:, None] == text, causal(len(text), len(text)), -np.inf).astype(np.float16)


def _attention(name: str, n_heads: int, mask: Mask) -> Work:
    n_queries, n_keys = mask.shape
    random = np.random.default_rng(0)
    query = random.standard_normal((n_queries, n_heads, WIDTH), np.float32)
    key, value = random.standard_normal((2, n_keys, N_KEY_HEADS, WIDTH), np.float32).astype(np.float16).view(np.uint8)
    return Work(
        f"attention {name}",
        "attention",
        # What a mask hides is no work: a score and its part of the result, for each number of a head.
        4.0 * WIDTH * n_heads * np.count_nonzero(mask == 0),
        lambda watch: operation.attention(query, key, value, operation.F16, mask, WIDTH**-0.5, watch=watch),
    )


class Peak:
    """The program of kernels/check/peak.cpp, compiled for a variant. Raises build.BuildError without a compiler."""

    def __init__(self, variant: str, folder: Path) -> None:
        self._program = folder / "peak"
        files = [str(KERNELS / "check" / "peak.cpp"), str(KERNELS / "cpu.cpp")]
        command = [*build.compiler(), "-std=c++17", "-O3", *build.variants()[variant], *files, "-o"]
        try:
            done = subprocess.run([*command, str(self._program)], capture_output=True, text=True, check=False)
        except OSError as error:
            raise build.BuildError(str(error)) from None
        if done.returncode:
            raise build.BuildError(done.stderr.strip())

    def measure(self) -> dict[str, tuple[float, str]]:
        """For each kind of operation, billions a second, and the instructions."""
        lines = subprocess.run([self._program], capture_output=True, text=True, check=True).stdout.splitlines()
        fields = [line.split(" ", 2) for line in lines]
        return {kind: (float(speed), instructions) for kind, speed, instructions in fields}


@dataclass
class Timed:
    """The least seconds of an operation by llama.cpp and by ours, infinite where ours leaves it, and the peak."""

    theirs: float = math.inf
    ours: float = math.inf
    peak: float = 0

    def cells(self, work: Work, has_peak: bool) -> list[str]:
        gops = 1e-9 * work.n_operations
        row = [work.name, f"{1e3 * self.theirs:.2f}"]
        if math.isinf(self.ours):
            return [*row, "left to llama.cpp", "", "", *([""] if has_peak else [])]
        row += [f"{1e3 * self.ours:.2f}", f"{self.theirs / self.ours:.2f}", f"{gops / self.ours:.1f}"]
        return [*row, f"{100 * gops / self.ours / self.peak:.0f} %"] if has_peak else row


def timed(work: Work, variant: str, peak: Peak | None, n_rounds: int) -> Timed:
    """The best of several rounds: the loop, llama.cpp and the variant, one after the other."""
    best, watch = Timed(), Stopwatch()
    for _ in range(n_rounds):
        if peak is not None:
            best.peak = max(best.peak, peak.measure()[work.kind][0])
        in_use.use(None)
        work.compute(watch)
        best.theirs = min(best.theirs, watch.seconds)
        in_use.use(variant)
        before = in_use.counts()
        work.compute(watch)
        if in_use.counts() != before:
            best.ours = min(best.ours, watch.seconds)
    return best


@contextmanager
def kept_memory() -> Iterator[None]:
    """Have glibc keep freed memory, as a model's graph keeps its own: new pages take time, in the kernel."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)
    # M_MMAP_MAX: nothing lies in a mapping of its own, which would go when it is freed. M_TRIM_THRESHOLD: nothing is
    # given back. Afterwards both are as they were.
    mallopt(-4, 0)
    mallopt(-1, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(-4, 65_536)
        mallopt(-1, 128 << 10)


def shown(cells: list[str], markdown: bool) -> str:
    if markdown:
        return f"| {' | '.join(cells)} |"
    return f"{cells[0]:<42}" + "".join(f"{cell:>18}" for cell in cells[1:])


def numbers(_context: click.Context, _option: click.Parameter, value: str) -> list[int]:
    parts = value.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not like 128,512: tokens of a product, with commas between")
    return [int(part) for part in parts]


def peak_of(variant: str, folder: Path) -> Peak | None:
    try:
        return Peak(variant, folder)
    except build.BuildError as error:
        click.echo(f'Without the column "of peak": {error}', err=True)
        return None


@click.command(help=__doc__.partition("\n")[0])
@click.option("--type", "types", multiple=True, default=["Q4_K", "Q6_K"], type=click.Choice(list(WEIGHTS)))
@click.option("--tokens", default="16,128,512,2048", show_default=True, callback=numbers, help="Of the products.")
@click.option("--variant", help="Ours.  [default: the one that this machine chooses]")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--markdown", is_flag=True, help="For docs/performance.md.")
@click.option("--quick", is_flag=True, help="Small operations, to see that it works.")
def main(
    types: tuple[str, ...], tokens: list[int], variant: str | None, rounds: int, markdown: bool, quick: bool
) -> None:
    chosen = in_use.chosen()
    variant = variant or chosen.variant
    if variant is None:
        raise click.ClickException(f"our kernels do not run here: {chosen.why}")
    if why := in_use.variants().get(variant, "it is not compiled in"):
        raise click.ClickException(f"{variant} does not run here: {why}")
    shrunk = QUICK if quick else 1
    shapes = tuple((n_rows // shrunk, 256) for n_rows, _ in SHAPES[:2]) if quick else SHAPES
    try:
        with tempfile.TemporaryDirectory() as folder, kept_memory():
            peak = peak_of(variant, Path(folder))
            print_conditions(variant, peak, rounds)
            header = ["operation", "llama.cpp ms", f"{variant} ms", "ratio", "GOPS", *(["of peak"] if peak else [])]
            click.echo(shown(header, markdown))
            if markdown:
                click.echo(f"|{'---|' * len(header)}")
            for work in chain(products(types, tokens, shapes), attentions(shrunk)):
                click.echo(shown(timed(work, variant, peak, rounds).cells(work, peak is not None), markdown))
    finally:
        in_use.use(chosen.variant)


def print_conditions(variant: str, peak: Peak | None, n_rounds: int) -> None:
    versions = f"q3e-local {q3e_local.__version__}, llama-cpp-python {version('llama-cpp-python')}"
    click.echo(f"{machine.cpu_name()}, {platform.system()}; {versions}; {datetime.now(UTC).date()}")
    click.echo(f"{variant}, one thread, CPU time, best of {n_rounds} rounds in turn; GOPS are of {variant}")
    if peak is not None:
        loops = [f"{kind} {speed:.1f} GOPS ({how})" for kind, (speed, how) in peak.measure().items()]
        click.echo(f"Loops over registers: {'; '.join(loops)}")
    click.echo()


if __name__ == "__main__":
    main()
