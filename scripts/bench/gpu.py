"""One run on a machine with a GPU, in under ten minutes: is it right there, what does it survive, how fast is it.

Each step is a process with a time limit, and what it said is kept at once: a run that is stopped, or a step that ends
its process, leaves what it has. The same command goes on with the steps that are not done.

    python scripts/bench/gpu.py --wheels FOLDER       # a CUDA build of llama.cpp and all it needs, carried along
    python scripts/bench/gpu.py --build               # compiles llama.cpp for CUDA, once
    python scripts/bench/gpu.py                       # with this Python, as it is

Checks the hidden-state tap, vectors beside the CPU's, long texts, a killed process, and a GPU whose memory others
take. Measures texts of 16 to 32,768 tokens in batches of 512 to 4,096, with flash attention and without; and where
they are here, llama-server (--llama-server PATH, on the same file) and sentence-transformers (--torch-python PATH, in
bf16). The models are synthetic, of the real sizes.

Writes OUTPUT (JSON, all rows), and beside it a table (.md). Needs the standard library alone, and ./q3e_local.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from card import plan, table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BINDING = "llama-cpp-python==0.3.36"
CMAKE = "-DGGML_CUDA=on -DCMAKE_CUDA_ARCHITECTURES=native -DLLAVA_BUILD=OFF"
_LAST_S = 5.0  # to write the table, once the time is up


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    run = Run(options)
    models = [name for name, _ in options.model] if options.model else ["0.6b", "4b"]
    steps = plan.planned(
        models,
        installs=options.wheels is not None or options.build,
        has_server=options.llama_server is not None,
        has_torch=options.torch_python is not None,
        makes=not options.model,
    )
    if options.only:
        steps = [step for step in steps if any(word in step.name for word in options.only)]
    for step in plan.missing(steps, run.found["steps"]):
        run.step(step)
    run.write()
    print(run.table)
    return 0


class Run:
    """The steps of a run, and the file that they are kept in."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._ends = time.monotonic() + options.seconds - _LAST_S
        self._work = options.work.resolve()
        self._work.mkdir(parents=True, exist_ok=True)
        self._env = self._work / "env"
        self.found: dict[str, Any] = {"title": f"On a GPU, {datetime.now(UTC):%Y-%m-%d}", "steps": {}}
        if options.output.exists():
            self.found = json.loads(options.output.read_text(encoding="utf-8"))

    @property
    def table(self) -> str:
        return table.markdown(self.found)

    def step(self, step: plan.Step) -> None:
        """Run it for as long as it may, and keep what it said."""
        limit_s = plan.allowed_s(step, self._ends - time.monotonic())
        kept: dict[str, Any] = {"state": "not begun", "why": "the time was up", "rows": [], "seconds": 0.0}
        self.found["steps"][step.name] = kept
        if limit_s:
            began = time.monotonic()
            kept["state"], kept["why"] = "done", ""  # where there is nothing left to make
            try:
                for command in self._commands(step):
                    left_s = limit_s - (time.monotonic() - began)
                    kept["state"], kept["why"] = self._command(command, step, left_s, kept["rows"])
                    if kept["state"] != "done":
                        break
                else:
                    if step.kind == "install":
                        (self._work / "installed").touch()
            except OSError as error:
                kept["state"], kept["why"] = "failed", str(error)
            kept["seconds"] = round(time.monotonic() - began, 2)
        say(f"{step.name}: {kept['state']}{', ' if kept['why'] else ''}{kept['why']} ({kept['seconds']:.0f} s)")
        self.write()

    def _command(
        self, command: list[str], step: plan.Step, limit_s: float, rows: list[dict[str, Any]]
    ) -> tuple[str, str]:
        log = self._work / "last.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._environment(), cwd=ROOT,
                start_new_session=True,
            )  # fmt: skip
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(max(0.1, limit_s), stop)
        timer.start()
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line.startswith("{"):
                    rows.append(json.loads(line))
                    self.write()
        code = process.wait()
        timer.cancel()
        if late.is_set():
            return "stopped", f"after {limit_s:.0f} s"
        if code:
            _kill(process)  # what it may have started
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            return "failed", f"exit code {code}{': ' if last else ''}{''.join(last)}"
        return "done", ""

    def _commands(self, step: plan.Step) -> list[list[str]]:
        python = str(self._env / ("Scripts" if os.name == "nt" else "bin") / "python")
        if step.kind == "install":
            make = [sys.executable, "-m", "venv", str(self._env)]
            pip = [python, "-m", "pip", "install", "-q"]
            if self._options.wheels is not None:
                wheels = sorted(map(str, self._options.wheels.resolve().glob("*.whl")))
                return [make, [*pip, "--no-index", "--find-links", str(self._options.wheels.resolve()), *wheels]]
            constraints = ["-c", str(ROOT / "constraints.txt")]
            ours = [*pip, *constraints, f"{ROOT}[dev]"]
            return [make, [*pip, *constraints, "--no-binary", "llama-cpp-python", BINDING], ours]
        if not (self._work / "installed").exists():
            python = sys.executable
        of = step.options | {"path": str(self._path(step.options.get("model", "")))}
        of |= {"device": self._options.device, "work": str(self._work)}
        if step.kind == "make":
            script = ROOT / "scripts" / "convert" / "make_synthetic.py"
            size = ["--size", step.options["model"], "-o", of["path"]]
            return [] if Path(of["path"]).exists() else [[python, str(script), *size]]
        of["checkpoint"] = str(self._work / f"{step.options.get('model', '')}-checkpoint")
        if step.kind == "checkpoint":
            script = HERE / "comparison" / "checkpoint.py"
            whole = (Path(of["checkpoint"]) / "config.json").exists()
            return [] if whole else [[str(self._options.torch_python), str(script), of["path"], of["checkpoint"]]]
        if step.kind == "sentence_transformers":
            texts = [python, str(HERE / "card" / "child.py"), "texts", json.dumps(of)]
            return [texts, [str(self._options.torch_python), str(HERE / "card" / "torch_child.py"), json.dumps(of)]]
        of["llama_server"] = str(self._options.llama_server)
        return [[python, str(HERE / "card" / "child.py"), step.kind, json.dumps(of)]]

    def _path(self, model: str) -> Path:
        return dict(self._options.model).get(model, self._work / f"synth-{model}.gguf")

    def _environment(self) -> dict[str, str]:
        ours = {"PYTHONPATH": str(ROOT), "Q3E_HOME": str(self._work / "home"), "HF_HUB_OFFLINE": "1"}
        return {**os.environ, "CMAKE_ARGS": CMAKE, **ours}

    def write(self) -> None:
        """Keep what was found, and the table."""
        for path, content in (
            (self._options.output, json.dumps(self.found, indent=1)),
            (self._options.output.with_suffix(".md"), self.table),
        ):
            part = path.with_name(f"{path.name}.part")
            part.write_text(content, encoding="utf-8")
            part.replace(path)


def _kill(process: subprocess.Popen[str]) -> None:
    """End a step and what it started: a server that stays would take the card from the steps behind it."""
    import signal

    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    elif process.poll() is None:
        process.kill()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    install = parser.add_mutually_exclusive_group()
    install.add_argument(
        "--wheels", type=Path, metavar="FOLDER", help="install all wheels of this folder, and nothing else"
    )
    install.add_argument(
        "--build", action="store_true", help="compile llama.cpp for CUDA; needs the toolkit and a network"
    )
    parser.add_argument("--llama-server", type=_absolute, metavar="PATH")
    parser.add_argument("--torch-python", type=_absolute, metavar="PATH", help="a Python with sentence-transformers")
    parser.add_argument(
        "--device", help="as q3e-local doctor names it [default: chosen]; none: the CPU, to try this script"
    )
    parser.add_argument(
        "--model", type=_model, action="append", default=[], metavar="NAME=PATH",
        help="a file in place of the synthetic ones; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", metavar="WORD", help="steps with this in their name; may be repeated"
    )
    parser.add_argument("--seconds", type=float, default=570, help="of the whole run [default: 570]")
    parser.add_argument("--work", type=Path, default=Path("gpu-bench"), help="for models and the environment")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    return parser.parse_args(arguments)


def _absolute(text: str) -> Path:
    """Steps run elsewhere. A link stays one: it is what makes a Python that of its environment."""
    return Path(text).absolute()


def _model(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not like demo=demo.gguf")
    return name, Path(path).resolve()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
