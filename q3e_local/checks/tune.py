"""Find the settings with which a model is fastest on this machine, by measuring them in turn.

The setting that promises most comes first. All values of a setting do the same work in each round, and a race
decides. A value that makes llama.cpp end the process is left out, and the rest goes on. Takes a model and a clock;
prints and keeps nothing.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from q3e_local.checks.measured import LENGTHS, SAMPLE_S, SAMPLE_TOKENS, Row, mean
from q3e_local.checks.tune_child import ModelInChild
from q3e_local.checks.tune_devices import Contest, cpu_against_gpu
from q3e_local.errors import CrashError, NotEnoughMemoryError
from q3e_local.llama import forecast
from q3e_local.llama.settings.defaults import TUNABLE, Host, Reason, Tuned, defaults, other_threads
from q3e_local.llama.settings.kept import Platform
from q3e_local.llama.settings.planning import chosen
from q3e_local.llama.settings.trials import Race
from q3e_local.wording.endings import manner

_N_BATCHES = (1024, 2048)  # batches smaller than the default have won nowhere
_N_BATCHES_ON_GPU = (512, 2048, 4096)
_SPARE = 1.2  # factor on the estimate of a budget, since speeds differ between settings


@dataclass(frozen=True)
class TuneResult:
    """The best settings, how they were found, and what was left out for lack of time or memory, or after a crash."""

    best: Tuned
    rows: list[Row]
    left_out: list[str]
    seconds: float
    left_out_s: float = 0.0  # about how much more time the settings need that there was no time for
    contest: Contest | None = None  # where a GPU shares the CPU's memory

    @property
    def enough_s(self) -> int:
        """A budget in seconds that is about enough for all settings, in tens."""
        return math.ceil((self.seconds + self.left_out_s) * _SPARE / 10) * 10

    @property
    def is_anything(self) -> bool:
        """Whether any setting was decided."""
        return any(getattr(self.best, name) is not None for name in TUNABLE)


def tune(path: Path, budget_s: float, tell: Callable[[str], None]) -> tuple[TuneResult, Platform]:
    """Load a model in a child process and measure it: the result, and where it counts.

    A GPU that computes with the machine's memory must first beat the CPU; where it does not, the CPU is tuned. Raises
    what loading raises, and CrashError where the default settings end the process already.
    """

    def tuned(model: ModelInChild, seconds: float) -> TuneResult:
        platform = model.platform
        host = model.placement.host(platform.n_cores, platform.kernels)
        return Tuning(model, host, platform.n_cpus, tell=tell).run(seconds)

    # By name, as an earlier tuning may have left it alone.
    names = ",".join(device.name for device in chosen(forecast.devices(), None))
    # Where none answers, the engine must not ask again.
    with closing(ModelInChild(path, **({"device": names} if names else {"n_gpu_layers": 0}))) as model:
        if not model.placement.is_unified:
            return tuned(model, budget_s), model.platform
        with closing(ModelInChild(path, n_gpu_layers=0)) as on_cpu:
            contest = cpu_against_gpu(on_cpu, model, budget_s / 2, tell)
            winner = on_cpu if contest.cpu_is_faster else model
            return _after(contest, tuned(winner, budget_s - contest.seconds)), winner.platform


def _after(contest: Contest, result: TuneResult) -> TuneResult:
    rows, left_out = [*contest.rows, *result.rows], [*contest.left_out, *result.left_out]
    return replace(result, rows=rows, left_out=left_out, contest=contest, seconds=contest.seconds + result.seconds)


@dataclass
class Tuning:
    """The tuning of a model. Calls `tell` with what it measures next."""

    model: ModelInChild
    host: Host
    n_cpus: int
    clock: Callable[[], float] = time.perf_counter
    tell: Callable[[str], None] = lambda what: None

    def __post_init__(self) -> None:
        self._settings = defaults(self.host)
        self._decided: set[str] = set()
        self._rows: list[Row] = []
        self._left_out: list[str] = []
        self._left_out_s = 0.0
        self._ends, self._speed, self._is_cold = 0.0, 1.0, True

    def run(self, budget_s: float) -> TuneResult:
        """Measure for about so long. Raises what the model raises."""
        began = self.clock()
        self._ends = began + budget_s
        self.model.use(self._settings)
        self._warm_up()
        if not self.host.on_gpu:
            least, most = SAMPLE_TOKENS
            n_tokens = max(least, min(most, int(SAMPLE_S * self._speed)))
            work = dict.fromkeys(LENGTHS, n_tokens // LENGTHS["medium"] * LENGTHS["medium"])  # whole texts
            self._try("n_threads", other_threads(self.host.n_cores, self.n_cpus), work)
        others = _N_BATCHES_ON_GPU if self.host.on_gpu else _N_BATCHES
        try:
            self._try("n_batch", others, {"medium": max(others)})  # as much as the largest batch takes at once
        except NotEnoughMemoryError as error:
            self._left_out.append(f"n_batch: {error}")
        values = {name: getattr(self._settings, name) if name in self._decided else None for name in TUNABLE}
        best = Tuned(**values, day=date.today().isoformat())
        return TuneResult(best, self._rows, self._left_out, self.clock() - began, self._left_out_s)

    def _warm_up(self) -> None:
        """Let the first call make buffers and read the weights, and estimate the speed by the second."""
        for _ in range(2):
            began = self.clock()
            self.model.speed(self.model.make(1, LENGTHS["medium"]))
            self._speed = LENGTHS["medium"] / max(self.clock() - began, 1e-6)
        self._is_cold = False

    def _try(self, setting: str, others: Sequence[int], work: dict[str, int], instead: int | None = None) -> None:
        """Let the values of a setting race, and use the winner from now on.

        Where the present value ends the process, the others race against `instead`, which counts as tried once it has
        done the work.
        """
        first: int = getattr(self._settings, setting) if instead is None else instead
        others = [other for other in others if other != first]
        race = Race(first, others)
        measured: dict[int, list[dict[str, float]]] = {}  # by value: a round's speeds by size of text
        crashes: dict[int, CrashError] = {}
        while not race.is_over or (instead is not None and not measured):
            order = race.order() or [first]
            n_tokens, n_rounds = sum(work.values()) * len(order), max(1, race.n_rounds_left)
            if self.clock() + n_tokens / self._speed > self._ends:
                values, more_s = ", ".join(map(str, order)), n_tokens * n_rounds / self._speed
                why = f"no time to tell {values} apart; it takes about {more_s:.0f} s more"
                self._left_out.append(f"{setting}: {why}")
                self._left_out_s += more_s
                break
            self.tell(f"{setting}: {', '.join(map(str, order))}")
            texts = {size: self._texts(n, size) for size, n in work.items()}
            for value in order:
                try:
                    measured.setdefault(value, []).append(self._speeds(setting, value, texts))
                except CrashError as crash:
                    crashes[value] = crash
                    self._is_cold = True
                    race.drop(value)
            if first in crashes:
                break
            race.add({value: mean(measured[value][-1]) for value in (first, *race.left)})
            self._speed = mean(measured[first][-1])
        self._say_crashes(setting, crashes)
        if first in crashes:
            self._add_rows(setting, None, {value: measured[value] for value in crashes}, crashes)
            left = [other for other in others if other not in crashes]
            if left:
                self._try(setting, left[1:], work, instead=left[0])
            return
        self._add_rows(setting, race, measured, crashes)
        if measured and (race.is_over or instead is not None):
            self._decided.add(setting)
            self._settings = self._settings.changed(setting, race.winner, Reason("tuned", "fastest"))

    def _speeds(self, setting: str, value: int, texts: dict[str, list[str]]) -> dict[str, float]:
        """A value's speeds in a round, by size of text. Raises CrashError where it ends the process."""
        self.model.use(self._settings.changed(setting, value, Reason("given", "being measured")))
        if self._is_cold:
            self._warm_up()
        return {size: self.model.speed(of_size) for size, of_size in texts.items()}

    def _add_rows(
        self,
        setting: str,
        race: Race | None,
        measured: dict[int, list[dict[str, float]]],
        crashes: dict[int, CrashError],
    ) -> None:
        for value, rounds in measured.items():
            sizes = rounds[0] if rounds else ()
            speeds = {size: statistics.median(speed[size] for speed in rounds) for size in sizes}
            ratios = race.ratios.get(value) if race is not None else None
            crash = manner(crashes[value].exit_code) if value in crashes else None
            is_best = race is not None and value == race.winner
            ratio = statistics.median(ratios) if ratios else None
            self._rows.append(Row(setting, value, speeds, ratio, len(rounds), is_best, crash))

    def _say_crashes(self, setting: str, crashes: dict[int, CrashError]) -> None:
        for value, crash in crashes.items():
            said = f"; its last words: {crash.last_words}" if crash.last_words else ""
            how = manner(crash.exit_code)
            self._left_out.append(f"{setting}: {value} ends the process here, by {how}{said}")

    def _texts(self, n_tokens: int, size: str) -> list[str]:
        length = min(n_tokens, LENGTHS[size])
        return self.model.make(max(1, n_tokens // length), length)
