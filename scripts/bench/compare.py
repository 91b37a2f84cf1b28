"""The comparison: this project beside other runtimes of the same model, in turn, same texts, same file.

Each round measures all contenders one after the other, whoever goes first in one goes last in the next, and ratios
are taken round by round: a laptop's speed drifts. Each contender has processes of its own, so that peak memory is its
own. Its vectors are held to this project's, and in a run's first round to a float32 reference of its own weights.
Every round is kept at once: an interrupted run goes on where it was.

    python scripts/bench/compare.py --model synth-0.6b.gguf=0.6b --llama-server PATH --other-python PYTHON

PYTHON has what comparison/requirements.txt lists, or less. A contender whose process dies, that is not installed or
that this machine cannot run, is a row that says so, and the others go on.

Writes OUTPUT (JSON, all raw figures), and beside it a table (.md) and a plot (.png, needs the extra `bench`).
docs/performance.md says how to build llama-server and the models.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from comparison import batches, report, results, server_flags
from comparison.contenders import Cli, Contender, DiedError, InChild, Measured, Server
from comparison.kind import NotHereError
from comparison.models import SPARE_BYTES, Model, converted, needed, require
from comparison.reference import Reference
from comparison.roster import LABELS, PEERS, TAKES_NAME, WITHOUT_KERNELS
from comparison.workloads import WORKLOADS, Given, Rounds, Workload, missing, turn

import q3e_local
from q3e_local import machine
from q3e_local.cli.stopping import stopping_cleanly
from q3e_local.errors import CrashError
from q3e_local.llama.child import Child
from q3e_local.models.installed import locate
from q3e_local.wording.endings import manner

ROUNDS_OF_LONGEST = 3  # of 8,192-token texts, minutes each, however many of the others
SETTLE_S = 0.3  # threads that are done wait busily for a moment
BUSY_PERCENT = 10  # of this machine with something else, above which figures are in doubt
QUICK = 0.05
REFERENCE_TOKENS = 1024  # of a round, one text at least, whose vectors are computed in float32


@dataclass
class Comparison:
    """One run: what was asked for, and the results it adds to."""

    output: Path
    scratch: Path
    llama_server: Path | None
    other_python: str
    n_rounds: int
    quick: bool
    only_contenders: tuple[str, ...]
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> int:
        return len(self.found["runs"]) - 1

    def begin(self) -> None:
        self.found = results.read(self.output)
        self.scratch.mkdir(parents=True, exist_ok=True)
        here = about()
        if self.found["runs"] and (old := self.found["runs"][-1]["machine"]["cpu"]) != here["machine"]["cpu"]:
            raise click.ClickException(f"{self.output} is of another machine, {old}; give another --output")
        self.found["runs"].append(here)

    def save(self) -> None:
        results.write(self.output, self.found)

    # Contenders

    def make(self, name: str, model: Model, workload: Workload) -> Contender:
        """A contender for a workload. Raises NotHereError."""
        n_tokens, path = workload.n_tokens, str(model.path)
        variables = {"Q3E_KERNELS": "off"} if name in WITHOUT_KERNELS else {}
        own = WITHOUT_KERNELS.get(name, name)
        if own == "library":
            return InChild("library", {"model": path}, self.scratch, variables=variables)
        if own == "http":
            command = [sys.executable, "-m", "q3e_local", "serve", "-m", path, "--keep-alive", "-1", "--no-cache"]
            named = locate(path).name
            return Server(command, named, self.scratch, takes_instruction=True, variables=variables)
        if name == "cli":
            return Cli(model.path, self.scratch)
        if name == "llama-embed":
            return InChild("llama_embed", {"model": path, "n_tokens": n_tokens}, self.scratch)
        if name in PEERS:
            return self.make_peer(name, model, workload)
        if self.llama_server is None:
            raise NotHereError("no --llama-server was given")
        if name == "llama-server":
            return Server(server_flags.defaults(self.llama_server, model.path, n_tokens), model.name, self.scratch)
        choice = self.best_flags(model, workload)
        command = server_flags.best(self.llama_server, model.path, n_tokens, choice)
        return Server(command, model.name, self.scratch)

    def make_peer(self, name: str, model: Model, workload: Workload) -> InChild:
        """A runtime under the other Python. Raises NotHereError where its files cannot be made."""
        require(needed(name, model, workload.n_tokens, 0))
        peer = PEERS[name]
        folder = converted(model, peer.form, self.scratch, self.other_python, lambda line: tell(f"  {line}"))
        options = {"folder": str(folder), "n_threads": machine.physical_cores(), **peer.options}
        if name in TAKES_NAME:
            options["name"] = model.name
        made = InChild(peer.kind, options, self.scratch, self.other_python, takes_ids=True)
        made.n_batch = self.best_batch(name, made, model, workload)
        return made

    def best_batch(self, name: str, made: InChild, model: Model, workload: Workload) -> int:
        """How many texts a runtime computes at once: tried once and kept, on half of a round's texts."""
        key = f"{model.name}/{name}/{workload.name}"
        if key in self.found["batches"]:
            n_batch: int = self.found["batches"][key]["n_batch"]
            return n_batch
        n_texts = max(1, workload.n_texts(model.scale) // 2)
        choices = batches.candidates(workload.n_tokens, n_texts) if PEERS[name].batches else [1]
        if self.quick:
            choices = choices[:1]
        _, given = texts_for(model, workload, n_texts if choices[1:] else 1, range(-2, -1))

        def speed(n_batch: int) -> float:
            made.n_batch = n_batch
            found = max(made.measure(given, workload).figures["texts_per_s"] for _ in range(2))
            tell(f"  {LABELS[name]}, {n_batch} texts at once: {found:.2f} texts/s")
            return float(found)

        made.start()  # only its own process knows whether it can
        try:
            winner, tried = batches.best(choices, speed)
        finally:
            made.stop()
        if not self.quick:
            self.found["batches"][key] = {"n_batch": winner, "texts_per_s": tried, "run": self.run}
            self.save()
        return winner

    def best_flags(self, model: Model, workload: Workload) -> server_flags.Choice:
        """llama-server's best flags for workloads like this one, tried once and kept."""
        name = server_flags.class_of(workload)
        key = f"{model.name}/{name}"
        if self.quick:
            return server_flags.Choice()
        if key not in self.found["best"]:
            winner, tries = server_flags.search(name, lambda choice: self.try_flags(model, name, choice))
            self.found["best"][key] = {"choice": asdict(winner), "tries": tries, "run": self.run}
            self.save()
        kept = self.found["best"][key]["choice"]
        return server_flags.Choice(**{k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()})

    def try_flags(self, model: Model, name: str, choice: server_flags.Choice) -> float:
        """Texts a second, the better of two measurements on half of a round's texts; 0 where it does not start."""
        assert self.llama_server is not None
        workload = WORKLOADS[server_flags.TRIED_ON[name]]
        command = server_flags.best(self.llama_server, model.path, workload.n_tokens, choice)
        warm, *givens = texts_for(model, workload, workload.n_texts(model.scale / 2), range(-2, 0))
        server = Server(command, model.name, self.scratch)
        try:
            server.start()
            server.measure(warm, workload)
            speed = max(server.measure(given, workload).figures["texts_per_s"] for given in givens)
        except (RuntimeError, OSError) as error:
            tell(f"  {shlex.join(command[1:])}: {error}")
            return 0.0
        finally:
            server.stop()
        tell(f"  {shlex.join(choice.flags(workload.n_tokens))}: {speed:.2f} texts/s")
        return speed

    # Measuring

    def cell(self, model: Model, workload: Workload) -> None:
        """Rounds of one workload, until every contender has enough of them beside the base."""
        names = [name for name in workload.contenders if not self.only_contenders or name in self.only_contenders]
        if workload.base not in names:
            names = [workload.base, *names]
        n_texts = workload.n_texts(model.scale * (QUICK if self.quick else 1))
        facts = {
            "model": model.name, "digest": model.info.digest, "workload": asdict(workload), "texts": n_texts,
            "base": workload.base, "shape": model.shape,
        }  # fmt: skip
        try:
            cell = results.cell_of(self.found, f"{model.name}/{workload.name}", facts)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        n_rounds = min(self.n_rounds, ROUNDS_OF_LONGEST) if workload.n_tokens > 4096 else self.n_rounds
        cell["skipped"] = {}
        wanted = missing(cell["rounds"], workload.base, names, n_rounds)
        for name in wanted:  # to be tried again
            cell["died"].pop(name, None)
        tell(f"{model.name}, {report.title(cell['workload'], n_texts)}: {', '.join(wanted) or 'all here already'}")
        if not wanted:
            return
        made = self.made(model, workload, cell, wanted)
        if not missing(cell["rounds"], workload.base, left(cell, names), n_rounds):
            return
        self.peak(model)
        have = len(cell["rounds"])
        try:
            warm, *givens = texts_for(model, workload, n_texts, range(have, have + n_rounds))
        except DiedError as death:
            self.died(cell, workload.base, str(death))
            return
        exact = references(model, givens[0], [name for name in left(cell, names) if name in made])
        with ExitStack() as stack:
            running: dict[str, Contender] = {}
            stack.callback(lambda: [one.stop() for one in running.values()])
            for number, given in enumerate(givens, have):
                wanted = missing(cell["rounds"], workload.base, left(cell, names), n_rounds)
                if not wanted:
                    break
                todo = {name: made[name] for name in turn(wanted, number)}
                self.round(model, workload, cell, todo, running, warm, given, exact if number == have else {})

    def made(self, model: Model, workload: Workload, cell: dict[str, Any], names: list[str]) -> dict[str, Contender]:
        """The contenders that are here; making one may take a while, so none is made between two rounds."""
        found = {}
        for name in names:
            try:
                found[name] = self.make(name, model, workload)
            except NotHereError as error:
                self.left_out(cell, name, str(error))
            except DiedError as death:
                self.died(cell, name, str(death))
            except RuntimeError as error:
                self.left_out(cell, name, f"failed: {str(error).splitlines()[0]}")
        return found

    def left_out(self, cell: dict[str, Any], name: str, why: str) -> None:
        """Keep why a contender was not measured. The next run tries it again."""
        cell["skipped"][name] = why
        tell(f"  {name}: left out: {why}")
        self.save()

    def died(self, cell: dict[str, Any], name: str, how: str) -> None:
        """Keep how a contender's process ended. It is left out from then on, until the next run."""
        cell["died"][name] = how
        tell(f"  {name}: died: {how}")
        self.save()

    def round(
        self,
        model: Model,
        workload: Workload,
        cell: dict[str, Any],
        todo: dict[str, Contender],
        running: dict[str, Contender],
        warm: Given,
        given: Given,
        exact: dict[bool, Any],
    ) -> None:
        """All of `todo` on the same texts, one after the other; those that fail are left out from then on."""
        measured: dict[str, Measured] = {}
        for name, contender in todo.items():
            try:
                if name not in running:
                    self.make_room(name, model, workload, running)
                    contender.start()
                    running[name] = contender
                    if name != "cli":  # a process for each measurement: it is never warm
                        contender.measure(warm, workload)
                time.sleep(SETTLE_S)
                measured[name] = one = checked(contender.measure(given, workload), given, model.info.n_embd)
            except NotHereError as error:
                self.left_out(cell, name, str(error))
                continue
            except DiedError as death:
                self.died(cell, name, str(death))
                if name in running:
                    running.pop(name).stop()
                continue
            except RuntimeError as error:
                if name == workload.base:
                    raise
                self.left_out(cell, name, f"failed: {str(error).splitlines()[0]}")
                if name in running:
                    running.pop(name).stop()
                continue
            tell(f"  {name}: {one.figures['tokens_per_s']:,.0f} tokens/s, {one.figures['texts_per_s']:,.2f} texts/s")
        if not measured:
            return
        ours = measured.get(workload.base)
        for name, one in measured.items():
            if ours is not None:
                results.see_cosines(cell["cosine"], name, ours.vectors, one.vectors)
            if (truth := exact.get(name in PEERS)) is not None:
                results.see_cosines(cell["exactness"], name, truth, one.vectors[: len(truth)])
            cell["settings"][name] = shown_settings(todo[name])
            seen = cell["memory"].setdefault(name, {"peak_rss": 0, "pss": 0})
            for what, n_bytes in asdict(todo[name].memory).items():
                seen[what] = max(seen[what], n_bytes)
        cell["rounds"].append({"run": self.run, **{name: one.figures for name, one in measured.items()}})
        self.save()

    def make_room(self, name: str, model: Model, workload: Workload, running: dict[str, Contender]) -> None:
        """Stop those that wait if this one may not fit beside them. Raises NotHereError if it does not fit alone."""
        n_ctx = 0
        if name == "llama-server":
            n_ctx = model.info.n_ctx_train
        elif name == "llama-server-best":
            flags = self.best_flags(model, workload).flags(workload.n_tokens)
            n_ctx = int(flags[flags.index("-c") + 1])
        n_bytes = needed(name, model, workload.n_tokens, n_ctx)
        waiting = [other for other in running if other != "cli"]
        while machine.available_memory() < n_bytes + SPARE_BYTES and waiting:
            tell(f"  {waiting[0]} makes room")
            running.pop(waiting.pop(0)).stop()
        require(n_bytes)

    def peak(self, model: Model) -> None:
        """The matrix products this CPU can do, now: beside every workload, as its speed drifts."""
        busy = psutil.cpu_percent(interval=1)
        if busy > BUSY_PERCENT:
            tell(f"  something else takes {busy:.0f}% of this machine")
        for python in dict.fromkeys((self.other_python, sys.executable)):
            child = InChild("peak", {"n_threads": machine.physical_cores()}, self.scratch, python)
            try:
                child.start()
                found = child.ask({"times": 3 if self.quick else 15})["found"]
            except RuntimeError as error:
                tell(f"  no peak with {python}: {error}")
                continue
            finally:
                child.stop()
            self.found["peaks"].append(
                {
                    "run": self.run,
                    "model": model.name,
                    "busy_percent": busy,
                    "operations_per_s": found,
                    **child.settings,
                }
            )
            tell("  matrix products: " + ", ".join(f"{name} {rate / 1e9:,.0f} G/s" for name, rate in found.items()))
            return


def checked(one: Measured, given: Given, n_embd: int) -> Measured:
    """Whoever saw fewer tokens had less to do, and so had whoever gave no vectors of this model."""
    if one.n_tokens != given.n_tokens:
        raise RuntimeError(f"it read {one.n_tokens} tokens where there are {given.n_tokens}")
    if one.vectors.shape != (len(given.texts), n_embd):
        raise RuntimeError(f"its vectors have the shape {one.vectors.shape}, not {(len(given.texts), n_embd)}")
    if not np.isfinite(one.vectors).all():
        raise RuntimeError("its vectors are not finite")
    return one


def texts_for(model: Model, workload: Workload, n_texts: int, numbers: range) -> list[Given]:
    """Texts to warm up with, then those of these rounds. Raises DiedError where llama.cpp ends its process."""
    with Child(Rounds, model.path) as child:
        try:
            givens: list[Given] = child.ask("givens", workload, n_texts, numbers)
        except CrashError as crash:
            raise DiedError(f"{manner(crash.exit_code)}, when the texts were made: there are none") from None
        return givens


def references(model: Model, given: Given, names: list[str]) -> dict[bool, Any]:
    """What the first of these texts give in float32, by the file's weights and (True) by those in bf16 of the peers.

    NumPy computes it, in a process that gives its memory back.
    """
    n_texts = max(1, REFERENCE_TOKENS // len(given.ids[0]))
    with Child(Reference, model.path) as child:
        return {
            in_bf16: child.ask("vectors", given.ids[:n_texts], in_bf16)
            for in_bf16 in sorted({name in PEERS for name in names})
        }


def left(cell: dict[str, Any], names: list[str]) -> list[str]:
    """Those that can still be measured."""
    return [name for name in names if name not in cell["skipped"] and name not in cell["died"]]


def shown_settings(contender: Contender) -> Any:
    """A command without the folders of this machine, or what the child said."""
    if isinstance(contender, Server):
        parts = [Path(part).name if os.sep in part else part for part in contender.command]
        return {"command": shlex.join(parts).replace(f"{Path(sys.executable).name} -m q3e_local", "q3e-local")}
    return contender.settings


def about() -> dict[str, Any]:
    """What this run is, for whoever reads its figures."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "scripts/bench/compare.py", *sys.argv[1:]]),
        "commit": commit.stdout.strip() or "unknown",
        "machine": {
            "cpu": machine.cpu_name(),
            "cores": machine.physical_cores(),
            "memory_bytes": machine.total_memory(),
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {
            "q3e-local": q3e_local.__version__,
            "llama-cpp-python": version("llama-cpp-python"),
            "python": platform.python_version(),
        },
    }


def tell(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@click.option("--model", "models", metavar="PATH[=NAME]", multiple=True, help="A model file, and its name.")
@click.option("--llama-server", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A llama-server.")
@click.option(
    "--other-python", metavar="PYTHON", default=sys.executable, help="One with comparison/requirements.txt, or less."
)
@click.option("--only", "only", multiple=True, type=click.Choice(list(WORKLOADS)), help="Only this work.")
@click.option("--contender", "only_contenders", multiple=True, type=click.Choice(list(LABELS)), help="Only this one.")
@click.option("--rounds", default=5, show_default=True, help=f"Rounds; at most {ROUNDS_OF_LONGEST} of 8,192 tokens.")
@click.option("--quick", is_flag=True, help="A round of few texts, no flags tried: does everything work?")
@click.option("--again", is_flag=True, help="Forget the rounds there are of what is selected.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("comparison.json"), show_default=True, help="Results."
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="For models in other formats and logs. [default: OUTPUT.scratch]",
)
@click.option("--plot", type=click.Path(path_type=Path), help="[default: OUTPUT with .png]")
@click.option("--table", type=click.Path(path_type=Path), help="- prints it. [default: OUTPUT with .md]")
def main(
    models: tuple[str, ...], llama_server: Path | None, other_python: str, only: tuple[str, ...],
    only_contenders: tuple[str, ...], rounds: int, quick: bool, again: bool, output: Path, scratch: Path | None,
    plot: Path | None, table: Path | None,
) -> None:  # fmt: skip
    """Compare this project with others on each --model; without one, make table and plot of what is in OUTPUT."""
    scratch = scratch or output.with_suffix(".scratch")
    server = llama_server.resolve() if llama_server else None
    comparison = Comparison(output, scratch, server, other_python, 1 if quick else rounds, quick, only_contenders)
    if models:
        comparison.begin()
        with stopping_cleanly():  # servers must not outlive this process
            measure_all(comparison, [Model.of(text) for text in models], only or tuple(WORKLOADS), again)
    found = results.read(output)
    if table == Path("-"):
        click.echo(report.markdown(found), nl=False)
    else:
        (table or output.with_suffix(".md")).write_text(report.markdown(found), encoding="utf-8")
    try:
        report.plot(found, plot or output.with_suffix(".png"))
    except ImportError:
        tell("no plot: pip install 'q3e-local[bench]'")


def measure_all(comparison: Comparison, models: list[Model], only: tuple[str, ...], again: bool) -> None:
    for model in models:
        for name in only:
            if again:
                comparison.found["cells"].pop(f"{model.name}/{name}", None)
            comparison.cell(model, WORKLOADS[name])


if __name__ == "__main__":
    main()
