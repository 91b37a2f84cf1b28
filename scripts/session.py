"""Draw the terminal session of the README: docs/session.svg, from commands that are really run.

    python scripts/session.py

Runs them on the demo model in an empty home. Knows how rich draws a terminal; the program says what is printed.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "session.svg"
WIDTH = 100  # of what commands wrap; a line that does not wrap may be longer
COMMANDS = (
    "q3e-local index examples/notes -m demo",
    'q3e-local search "the website was down" -k 1 --text',
    'q3e-local search "顾客为什么没有买成？" -k 1 --text',
)


def lines(command: str, home: Path) -> list[str]:
    """What a command prints, with the home folder as people write it."""
    program, *arguments = shlex.split(command)
    assert program == "q3e-local"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("Q3E_", "XDG_", "HF_"))}
    environment = kept | {"HOME": str(home), "USERPROFILE": str(home), "COLUMNS": str(WIDTH), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "q3e_local", *arguments], cwd=ROOT, env=environment, text=True,
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}")
    return done.stdout.replace(str(home), "~").splitlines()


def draw(picture: Path) -> None:
    """Run the commands, and write the picture of what they print."""
    console = Console(record=True, width=WIDTH + 4, file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            for line in lines(command, Path(folder)):
                console.print(Text(line), soft_wrap=True)
    svg = console.export_svg(title="q3e-local", unique_id="session")
    # The fonts would come from a network; any monospaced font will do, because each stretch of text has its width.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    picture.write_text(svg.replace("Fira Code,", "ui-monospace, Menlo, Consolas,"), encoding="utf-8")


if __name__ == "__main__":
    draw(PICTURE)
