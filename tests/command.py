"""`q3e-local embed` for tests: in this process or as a real one, on the demo model.

Expected vectors come from the library and from NumPy, never from the command itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

import q3e_local
from q3e_local import Embedder, EmbedRequest, EmbedResult
from q3e_local.cli import main
from q3e_local.cli.texts import Layout, find

PROGRAM = (sys.executable, "-m", "q3e_local")


def run(*arguments: object, input: str | bytes | None = None) -> Result:
    """`q3e-local ARGUMENTS` in this process. An error that is not shown in a sentence fails the test."""
    return CliRunner().invoke(main, [*map(str, arguments)], input=input, catch_exceptions=False)


def assert_refused(arguments: Sequence[object], code: int, parts: Iterable[str]) -> None:
    """The command ends with this exit code, nothing on stdout, and all parts on stderr, wherever lines break."""
    result = run(*arguments, input="\n")
    assert (result.exit_code, result.stdout) == (code, "")
    for part in parts:
        assert part in result.stderr.replace("\n", " ")


def failed(*arguments: object, code: int = 1) -> str:
    """What `q3e-local ARGUMENTS` writes to stderr, when it fails with this exit code."""
    result = run(*arguments)
    assert result.exit_code == code, result.stderr
    return result.stderr


def embed(*arguments: object, input: str | bytes | None = None) -> Result:
    """`q3e-local embed -m demo ARGUMENTS` in this process."""
    return run("embed", "-m", "demo", *arguments, input=input)


def command(*arguments: object) -> list[str]:
    """The same as a command for subprocess."""
    return [*PROGRAM, "embed", "-m", "demo", *map(str, arguments)]


def loaded_by(*arguments: str, **variables: str) -> set[str]:
    """The modules that are loaded when `q3e-local ARGUMENTS` ends, in a process with these variables too."""
    program = (
        "import sys; from q3e_local.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    words = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | variables)
    return set(done.stderr.splitlines()[-1].split())


def records(output: str | bytes) -> list[dict[str, Any]]:
    """The objects of JSON Lines, each with its embedding as float32."""
    found = [json.loads(line) for line in output.splitlines()]
    for record in found:
        record["embedding"] = np.array(record["embedding"], np.float32)
    return found


def ids(output: str | bytes) -> list[str]:
    return [record["id"] for record in records(output)]


@cache
def demo() -> Embedder:
    return q3e_local.load("demo")


def expected(texts: Iterable[str], **options: Any) -> EmbedResult:
    """What the library answers. `options` are EmbedRequest's."""
    return demo().embed(EmbedRequest(list(texts), **options))


def texts_of(name: str, tell: Callable[[str], None] = lambda line: None, **layout: Any) -> dict[str, str]:
    """Id and text of each text that `embed` reads in a file, or its problem."""
    items = find([name], [], None, Layout(**layout)).read(tell)
    return {item.id: item.text if item.problem is None else f"! {item.problem}" for item in items}


def write(folder: Path, files: dict[str, bytes | str]) -> None:
    """Put files into a folder, text as UTF-8 and with its newlines as they are."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its bytes; not the home that conftest makes in it."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith("home/")}
