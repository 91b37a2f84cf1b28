"""Build the source archive and the wheel, and prove them as somebody would meet them who installs them.

    make dist

Builds the wheel out of the archive; checks the page that an index would show, and the systems that the wheel's name
promises; installs the wheel into an empty environment, and there runs what the README begins with. Everything is done
in folders of its own, and `dist/` gets the two files once all of it went well.
"""

from __future__ import annotations

import argparse
import email
import json
import math
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS = "q3e_local/llama/kernels/q3e_kernels.so"
HAS_KERNELS = sys.platform in ("linux", "darwin") and platform.machine().lower() in ("x86_64", "amd64")
_STARTING_S = 60.0
# Whether kernels are missing that should be there, and why.
_CHOSEN = "from q3e_local.llama.kernels import in_use; c = in_use.chosen(); print(c.is_wrong, c.why)"


class NotProvedError(Exception):
    """What was built is not what it should be; the text says what is wrong."""


def build(out: Path) -> tuple[Path, Path]:
    """The archive, and the wheel that was built out of it."""
    run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    (archive,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return archive, wheel


def check_page(*files: Path) -> None:
    """Hold to the rules of a package index: what it shows of the program must be valid."""
    run(sys.executable, "-m", "twine", "check", "--strict", *files)


def check_wheel(wheel: Path) -> None:
    """The kernels and both models are in it, and it runs on the systems that its name promises."""
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    wanted = {"q3e_local/models/cards/demo.gguf", "q3e_local/models/cards/demo-reranker.gguf"}
    wanted |= {KERNELS} if HAS_KERNELS else set()
    if not wanted <= names:
        raise NotProvedError(f"{wheel.name} lacks {', '.join(sorted(wanted - names))}")
    tag = wheel.stem.split("-")[-1]
    if not tag.startswith("manylinux"):
        return
    said = run(sys.executable, "-m", "auditwheel", "show", wheel)
    found = re.search(r'following platform\s+tag:\s+"(\w+)"', said)
    if found is None or _glibc(found[1]) > _glibc(tag):
        raise NotProvedError(f"the name of {wheel.name} promises {tag}; auditwheel says:\n{said}")


def _glibc(tag: str) -> tuple[int, int]:
    """The version of glibc that a tag such as manylinux_2_17_x86_64 asks for; of another tag one that is too new."""
    found = re.match(r"manylinux_(\d+)_(\d+)_", tag)
    return (int(found[1]), int(found[2])) if found else (sys.maxsize, 0)


def version_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as content:
        (place,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(content.read(place))["Version"]


def first_minute(wheel: Path, folder: Path) -> None:
    """Install the wheel into an empty environment, and run what a newcomer runs first."""
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    shutil.copytree(ROOT / "examples" / "notes", folder / "notes")

    def ours(*arguments: object) -> str:
        return run(programs / "q3e-local", *arguments, cwd=folder, Q3E_HOME=str(folder / "home"))

    if version_of(wheel) not in (said := ours("--version")):
        raise NotProvedError(f"q3e-local --version says {said!r}, the wheel is {version_of(wheel)}")
    line = json.loads(ours("embed", "--text", "hello", "-m", "demo"))
    if not math.isclose(math.hypot(*line["embedding"]), 1, abs_tol=1e-5):
        raise NotProvedError("a vector is not of length 1")
    ours("index", "notes", "-m", "demo")
    found = json.loads(ours("search", "the website was down", "-k", "1"))
    if "outage" not in found["id"]:
        raise NotProvedError(f"a search for the outage finds {found['id']} first")
    chosen = run(programs / "python", "-c", _CHOSEN, cwd=folder).split(maxsplit=1)
    if HAS_KERNELS and chosen[0] == "True":
        raise NotProvedError(f"the kernels of the wheel are not used: {chosen[1]}")
    with serving(programs / "q3e-local", folder) as address:
        answer = ask(f"{address}/api/embed", {"model": "demo", "input": ["one", "another"]})
        if len(answer["embeddings"]) != 2:
            raise NotProvedError("the server does not answer two texts with two vectors")


@contextmanager
def serving(program: Path, folder: Path) -> Iterator[str]:
    """A server of the installed program; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = os.environ | {"Q3E_HOME": str(folder / "home")}
    command, log = [program, "serve", "-m", "demo", "--port", str(port)], folder / "server.log"
    with log.open("wb") as said, subprocess.Popen(command, env=environment, cwd=folder, stderr=said) as server:
        try:
            until = time.monotonic() + _STARTING_S
            while not _answers(f"http://127.0.0.1:{port}/health"):
                if server.poll() is not None or time.monotonic() > until:
                    raise NotProvedError(f"`q3e-local serve` does not come up:\n{log.read_text('utf-8')}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def ask(url: str, body: dict[str, object]) -> dict[str, list[object]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_STARTING_S) as answer:
        return json.load(answer)


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """What a command writes to stdout. Raises NotProvedError where it fails, with all that it said."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise NotProvedError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def prove(target: Path) -> list[Path]:
    """Build, check, install and try; then put the files into `target`. Raises NotProvedError."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("building the archive, and the wheel out of it")
        archive, wheel = build(folder / "built")
        say(f"checking {archive.name} and {wheel.name}")
        check_page(archive, wheel)
        check_wheel(wheel)
        say("installing the wheel into an empty environment, and running the first minute there")
        first_minute(wheel, folder)
        target.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(file, target)) for file in (archive, wheel)]


def say(what: str) -> None:
    print(f"  {what}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "dist", help="the folder that gets the two files")
    try:
        files = prove(parser.parse_args().out)
    except NotProvedError as error:
        print(error, file=sys.stderr)
        return 1
    for file in files:
        say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
