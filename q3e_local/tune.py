"""Find the settings with which a model is fastest on this machine, by measuring them in turn.

One setting after the other, what promises most first: each of its values does the same work in every round, and a
race decides. Is handed engines and a clock; prints and keeps nothing.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

from q3e_local import machine, tuned
from q3e_local.bench import MakeTexts, Texts
from q3e_local.embedder import Embedder
from q3e_local.engine import Engine, EngineConfig
from q3e_local.errors import NotEnoughMemoryError, OptionError
from q3e_local.trials import CLEARLY, N_ROUNDS, Race
from q3e_local.tuned import Place
from q3e_local.tuning import (
    LONG_ATTENTION,
    TUNABLE,
    Host,
    Reason,
    Settings,
    Tuned,
    Value,
    defaults,
    other_threads,
    shown,
    tried,
)

LENGTHS = {"short": 16, "medium": 128, "long": 1024, "2,048": 2048, "4,096": 4096}  # tokens of a text
N_BATCHES = (256, 768, 1024)
N_BATCHES_ON_GPU = (512, 2048, 4096)
LONG_BATCHES = (256, 512, 1024, 2048)
_HAS_BF16 = "AVX512_BF16"  # the only CPUs whose products of bf16 llama.cpp is fast with
_LONG_ROUNDS = 3  # a sample takes seconds, so that fewer tell
_SLOWER = 2  # long texts than short ones, until they are measured
_SAMPLE_S = 0.5  # of work of each size, as far as that makes sense
_REPACK_CLEARLY = 1.15  # times as fast, for twice the memory
_SPARE = 1.2  # times the estimate of a budget: speeds differ between settings
_LEAST, _MOST = 128, 16_384  # tokens


class TunableEngine(Engine, Protocol):
    """An engine that changes its settings without loading anew, all but `repack`."""

    def use(self, settings: Settings) -> None:
        """Go on with these settings."""


@dataclass(frozen=True)
class Row:
    """One value of one setting: its speeds by size of text, in tokens a second, medians of the rounds."""

    setting: str
    value: Value
    speeds: dict[str, float]
    ratio: float | None  # to the value there was before, median of the rounds; None for that one itself
    n_rounds: int
    is_best: bool


@dataclass(frozen=True)
class Found:
    """The best settings, how they were found, and what there was no time or memory for."""

    best: Tuned
    rows: list[Row]
    left_out: list[str]
    seconds: float
    left_out_s: float = 0.0  # how long about it would have taken to decide what there was no time for

    @property
    def enough_s(self) -> int:
        """A budget that is about enough for everything, in tens of seconds."""
        return math.ceil((self.seconds + self.left_out_s) * _SPARE / 10) * 10

    @property
    def is_anything(self) -> bool:
        """Whether any setting was decided."""
        return any(getattr(self.best, name) is not None for name in TUNABLE)


def tune(embedder: Embedder, path: Path, budget_s: float, tell: Callable[[str], None]) -> tuple[Found, Place]:
    """Measure a loaded model, whose weights are not repacked, and say where the result counts."""
    from q3e_local.llama import native
    from q3e_local.llama.engine import LlamaEngine

    engine = embedder.engine
    if not isinstance(engine, LlamaEngine) or engine.settings.repack:
        raise OptionError("only a model in this process, loaded with repack=False, can be tuned")
    host = Host(machine.physical_cores(), engine.on_gpu, native.features())
    tuning = Tuning(
        engine,
        lambda: LlamaEngine(path, EngineConfig(repack=True)),
        Texts(path, engine.tokenize),
        host,
        n_cpus=machine.logical_cpus(),
        repacked_bytes=engine.info.size_bytes,
        tell=tell,
    )
    return tuning.run(budget_s), tuned.here(native.version(), host.features, host.on_gpu)


class Tuning:
    """One model's tuning. `tell` hears what is being measured."""

    def __init__(
        self,
        engine: TunableEngine,
        open_repacked: Callable[[], TunableEngine],
        make: MakeTexts,
        host: Host,
        *,
        n_cpus: int,
        repacked_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
        tell: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._engine, self._open_repacked, self._make = engine, open_repacked, make
        self._host, self._n_cpus, self._repacked_bytes = host, n_cpus, repacked_bytes
        self._clock, self._tell = clock, tell
        self._settings = defaults(host)
        self._decided: set[str] = set()
        self._rows: list[Row] = []
        self._left_out: list[str] = []
        self._left_out_s = 0.0
        self._began = self._ends = clock()
        self._speed = 1.0

    def run(self, budget_s: float) -> Found:
        """Measure for about so long. Raises what the engine raises."""
        self._began = self._clock()
        self._ends = self._began + budget_s
        self._engine.use(self._settings)
        self._warm_up(self._engine)
        with self._repacking():
            if not self._host.on_gpu:
                self._try("n_threads", other_threads(self._host.n_cores, self._n_cpus), self._usual_work())
            with self._where_there_is_room("flash_attention"):
                self._try("flash_attention", [False], {**self._usual_work(), "long": self._tokens(2, "long")})
            others = N_BATCHES_ON_GPU if self._host.on_gpu else N_BATCHES
            whole = max(others) * 3 // 4  # of each size: in all one and a half of the largest batch
            self._try("n_batch", others, {"short": whole, "medium": whole}, together=True)
            self._try_long()
        values = {name: getattr(self._settings, name) if name in self._decided else None for name in TUNABLE}
        best = Tuned(**values, day=date.today().isoformat())
        return Found(best, self._rows, self._left_out, self._clock() - self._began, self._left_out_s)

    def _try_long(self) -> None:
        """How texts longer than a batch are computed: their attention, then the tokens of a piece."""
        attentions = [name for name in LONG_ATTENTION if name != "plain bf16" or _HAS_BF16 in self._host.features]
        if self._host.on_gpu:
            attentions = attentions[:2]
        n_values = len(attentions) + len({self._settings.long_batch, *LONG_BATCHES})
        self._speed /= _SLOWER
        lengths = {size: LENGTHS[size] for size in ("4,096", "2,048")}
        if self._clock() + _LONG_ROUNDS * n_values * sum(lengths.values()) / self._speed > self._ends:
            del lengths["4,096"]
        works = {size: n for size, n in lengths.items() if min(n, self._engine.n_ctx_max) > self._engine.n_batch}
        if not works:
            return
        with self._where_there_is_room("long texts"):
            self._try("long_attention", attentions, works)
            self._try("long_batch", LONG_BATCHES, works)

    @contextmanager
    def _where_there_is_room(self, what: str) -> Iterator[None]:
        try:
            yield
        except NotEnoughMemoryError as error:
            self._left_out.append(f"{what}: {error}")
            self._engine.use(self._settings)

    @contextmanager
    def _repacking(self) -> Iterator[None]:
        """Go on with repacked weights where they have won."""
        if self._host.on_gpu:
            yield
            return
        free = machine.available_memory()
        if self._repacked_bytes > free:
            self._left_out.append(
                f"repack: {self._repacked_bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} are free"
            )
            yield
            return
        self._tell("loading the model once more, repacked")
        try:
            repacked = self._open_repacked()
        except NotEnoughMemoryError as error:
            self._left_out.append(f"repack: {error}")
            yield
            return
        try:
            repacked.use(self._settings)
            self._warm_up(repacked)
            original = self._engine
            self._try("repack", [True], self._usual_work(), engines={False: original, True: repacked})
            if self._settings.repack:
                self._engine = repacked
            else:
                repacked.close()
            yield
        finally:
            repacked.close()

    def _warm_up(self, engine: TunableEngine) -> None:
        """The first call makes buffers and reads the weights in; the second one shows about how fast it is."""
        for _ in range(2):
            began = self._clock()
            self._embed(engine, 1, LENGTHS["medium"])
            self._speed = LENGTHS["medium"] / max(self._clock() - began, 1e-6)

    def _usual_work(self) -> dict[str, int]:
        return {size: self._tokens(1, size) for size in ("short", "medium")}

    def _tokens(self, share: float, size: str) -> int:
        """Tokens that take about `_SAMPLE_S` times `share`: some whole texts, or a single one that is shorter."""
        n_tokens = max(_LEAST, min(_MOST, int(share * _SAMPLE_S * self._speed)))
        return n_tokens if size == "long" else n_tokens // LENGTHS["medium"] * LENGTHS["medium"]

    def _try(
        self,
        setting: str,
        others: Sequence[Value],
        work: dict[str, int],
        *,
        together: bool = False,
        engines: dict[Value, TunableEngine] | None = None,
    ) -> None:
        """Let the values of one setting race, and take the winner."""
        before: Value = getattr(self._settings, setting)
        clearly = _REPACK_CLEARLY if setting == "repack" else CLEARLY
        n_rounds = _LONG_ROUNDS if setting.startswith("long") else N_ROUNDS
        race = Race(before, [other for other in others if other != before], n_rounds, clearly)
        measured: dict[Value, list[dict[str, float]]] = {}  # by value: a round's speeds by size of text
        while not race.is_over:
            order = race.order()
            n_tokens = sum(work.values()) * len(order)
            if self._clock() + n_tokens / self._speed > self._ends:
                self._left_out.append(self._what_is_left(setting, order, n_tokens * race.n_rounds_left))
                self._left_out_s += n_tokens * race.n_rounds_left / self._speed
                break
            self._tell(f"{setting}: {', '.join(shown(value) for value in order)}")
            texts = {size: self._texts(n, size) for size, n in work.items()}
            if together:
                texts = {"mixed": [text for of_size in texts.values() for text in of_size]}
            for value in order:
                engine = self._engine if engines is None else engines[value]
                if engines is None:
                    # As if given: what is measured is not to be replaced for want of memory.
                    engine.use(tried(self._settings, setting, value, Reason("given", "being measured")))
                speeds = {size: self._speed_of(engine, of_size) for size, of_size in texts.items()}
                measured.setdefault(value, []).append(speeds)
            race.add({value: _mean(measured[value][-1]) for value in order})
            self._speed = _mean(measured[before][-1])
        if race.is_over and measured:
            self._decided.update(LONG_ATTENTION[str(before)] if setting == "long_attention" else [setting])
        self._take(setting, race, measured)
        if engines is None:
            self._engine.use(self._settings)

    def _take(self, setting: str, race: Race[Value], measured: dict[Value, list[dict[str, float]]]) -> None:
        winner = race.winner
        for value, rounds in measured.items():
            speeds = {size: statistics.median(one[size] for one in rounds) for size in rounds[0]}
            ratios = race.ratios.get(value)
            ratio = statistics.median(ratios) if ratios else None
            self._rows.append(Row(setting, value, speeds, ratio, len(rounds), is_best=value == winner))
        if winner != race.default:
            self._settings = tried(self._settings, setting, winner, Reason("tuned", "fastest"))

    def _what_is_left(self, setting: str, order: Sequence[Value], n_tokens: int) -> str:
        values = ", ".join(shown(value) for value in order)
        return f"{setting}: no time to tell {values} apart; it takes about {n_tokens / self._speed:.0f} s more"

    def _texts(self, n_tokens: int, size: str) -> list[str]:
        length = min(n_tokens, LENGTHS[size], self._engine.n_ctx_max)
        return self._make(max(1, n_tokens // length), length)

    def _embed(self, engine: Engine, n_texts: int, n_tokens: int) -> None:
        Embedder(engine, "").embed_documents(self._make(n_texts, n_tokens))

    def _speed_of(self, engine: Engine, texts: list[str]) -> float:
        began = self._clock()
        result = Embedder(engine, "").embed_documents(texts)
        return sum(result.prompt_tokens) / max(self._clock() - began, 1e-9)


def _mean(speeds: dict[str, float]) -> float:
    """Geometric, so that each size of text counts the same."""
    return math.exp(statistics.fmean(math.log(speed) for speed in speeds.values()))
