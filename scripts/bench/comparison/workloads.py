"""What is measured: how many texts of how many tokens, and in whose turn.

Knows nothing of contenders but their names.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import q3e_local
from comparison.roster import BATCH, BATCH_BASE, CLIENTS, CLIENTS_BASE
from q3e_local import Embedder
from q3e_local.checks.bench import Texts

N_PREFIX, N_QUERY = 21, 11  # tokens of `Instruct: ...\nQuery:` and of a query after it, end token included


@dataclass(frozen=True)
class Workload:
    """One row of the comparison. `weight` is the tokens of a round for a model of 0.6B; larger ones get fewer."""

    name: str
    n_tokens: int  # of a text, end token and instruction included
    weight: int
    n_clients: int = 0  # 0: one call or request with all texts
    is_query: bool = False

    @property
    def base(self) -> str:
        return CLIENTS_BASE if self.n_clients else BATCH_BASE

    @property
    def contenders(self) -> tuple[str, ...]:
        return CLIENTS if self.n_clients else BATCH

    def n_texts(self, scale: float) -> int:
        """Texts in a round. `scale` shrinks it for slow models; clients keep something to wait for."""
        if self.is_query:
            return self.weight // self.n_tokens
        least = 2 * self.n_clients if self.n_clients > 1 else 1
        return max(least, round(self.weight * scale / self.n_tokens))


WORKLOADS = {
    one.name: one
    for one in (
        Workload("16", 16, 3072),
        Workload("128", 128, 4096),
        Workload("512", 512, 4096),
        Workload("2048", 2048, 4096),
        Workload("8192", 8192, 8192),
        Workload("queries", N_PREFIX + N_QUERY, 64 * (N_PREFIX + N_QUERY), is_query=True),
        Workload("clients-1", 16, 512, n_clients=1),
        Workload("clients-64", 16, 3072, n_clients=64),
    )
}


@dataclass(frozen=True)
class Given:
    """A round's texts, the same for all contenders, with their ids for those who take ids."""

    texts: list[str]
    ids: list[list[int]]
    instruction: str | None

    @property
    def n_tokens(self) -> int:
        return sum(len(ids) for ids in self.ids)

    @property
    def prompted(self) -> list[str]:
        prefix = "" if self.instruction is None else prefix_of(self.instruction)
        return [prefix + text for text in self.texts]


def prefix_of(instruction: str) -> str:
    return f"Instruct: {instruction}\nQuery:"


class Rounds:
    """The texts of all rounds of a model. It loads the model, and so it is made in a child process."""

    def __init__(self, path: Path) -> None:
        self._path, self._embedder = path, q3e_local.load(path)

    def givens(self, workload: Workload, n_texts: int, numbers: range) -> list[Given]:
        """Texts to warm up with, then those of these rounds. A round's texts are the same in every run.

        Short texts warm up in batches as large as those that are measured: some runtimes prepare for a shape.
        """

        def maker(number: int) -> Maker:
            return Maker(self._embedder, self._path, zlib.crc32(f"{workload.name}/{number}".encode()))

        n_warm = max(2, n_texts // 2) if workload.n_tokens <= 512 else 2
        warm = maker(-9).given(workload, n_warm, min(workload.n_tokens, 512))
        return [warm, *(maker(number).given(workload, n_texts) for number in numbers)]


class Maker:
    """Texts for workloads, none of them given twice. Raises AssertionError where tokens are not those asked for."""

    def __init__(self, embedder: Embedder, path: Path, seed: int = 0) -> None:
        self._tokenize, self._eos_id = embedder.engine.tokenize, embedder.engine.eos_id
        self._texts = Texts(path, self._tokenize, seed)

    def given(self, workload: Workload, n_texts: int, n_tokens: int | None = None) -> Given:
        """`n_texts` texts of the workload; of `n_tokens` instead of its own, to warm up with."""
        instruction = self._instruction() if workload.is_query else None
        length = n_tokens or workload.n_tokens
        if instruction is None:
            texts = self._texts(n_texts, length)
        else:
            texts = self._texts(n_texts, length - N_PREFIX, spaced=True)
        made = Given(texts, [], instruction)
        made.ids.extend([*self._tokenize(text), self._eos_id] for text in made.prompted)
        assert all(len(ids) == length for ids in made.ids), f"{workload.name}: {[len(ids) for ids in made.ids]}"
        return made

    def _instruction(self) -> str:
        """One that comes to N_PREFIX tokens with what stands around it: a new one each round."""
        for n_words in range(1, N_PREFIX):
            instruction = self._texts(1, n_words + 1)[0]
            if len(self._tokenize(prefix_of(instruction))) == N_PREFIX:
                return instruction
        raise AssertionError(f"no instruction comes to {N_PREFIX} tokens")


def turn(contenders: Sequence[str], number: int) -> list[str]:
    """The order of a round: whoever goes first in one, goes last in the next."""
    if not contenders:
        return []
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def missing(rounds: Sequence[dict[str, object]], base: str, contenders: Sequence[str], wanted: int) -> list[str]:
    """Who has fewer than `wanted` rounds beside the base. The base comes with them: a ratio needs it in the round.

    Where the base is none of the contenders, as it died, rounds without it count.
    """
    has_base = base in contenders
    short = [
        name for name in contenders
        if sum(name in each and (base in each or not has_base) for each in rounds) < wanted
    ]  # fmt: skip
    return short if not short or not has_base or base in short else [base, *short]
