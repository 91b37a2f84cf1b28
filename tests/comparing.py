"""What tests of scripts/bench/compare.py share: its modules, which are no package of ours, and a call of it."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner

from q3e_local.models.catalog import models_folder

BENCH = Path(__file__).parent.parent / "scripts" / "bench"
DEMO = models_folder() / "demo.gguf"
MODULES = (
    "workloads", "results", "report", "server_flags", "contenders", "child", "client", "checkpoint", "batches",
    "kind", "models", "reference", "roster", "convert", "peak",
)  # fmt: skip


@contextmanager
def imported_parts() -> Iterator[SimpleNamespace]:
    """The modules of scripts/bench/comparison."""
    sys.path.insert(0, str(BENCH))
    yield SimpleNamespace(**{name: importlib.import_module(f"comparison.{name}") for name in MODULES})
    sys.path.remove(str(BENCH))
    for name in [name for name in sys.modules if name.split(".")[0] == "comparison"]:
        del sys.modules[name]


def compare(*arguments: object) -> Any:
    main = runpy.run_path(str(BENCH / "compare.py"))["main"]
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


def program(folder: Path, content: str) -> Path:
    """A program in Python, as `--llama-server` or `--other-python` takes one."""
    path = folder / "program"
    path.write_text(f"#!{sys.executable}\n{content}")
    path.chmod(0o755)
    return path


def quick(output: Path, *arguments: object, only: Sequence[str] = ("16",), contenders: Sequence[str] = ()) -> Any:
    """A quick comparison of the demo model, or of a `--model` among the arguments, that must end well."""
    model = () if "--model" in arguments else ("--model", f"{DEMO}=demo")
    chosen = [f"--only={name}" for name in only] + [f"--contender={name}" for name in contenders]
    result = compare(*model, "--quick", "--output", output, *chosen, *arguments)
    assert result.exit_code == 0, result.output
    return result
