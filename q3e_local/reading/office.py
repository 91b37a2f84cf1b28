"""Old office documents (.doc, .wps, .ppt, .xls and their like), converted by LibreOffice where it is installed.

Knows how LibreOffice is found and called; what comes out, the readers of .docx, .pptx and .xlsx read.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

from q3e_local.errors import InputError
from q3e_local.reading.limits import Limits

# Kind: the format it is converted to, which has a reader.
CONVERTED = {"doc": "docx", "ppt": "pptx", "xls": "xlsx"}

_TIMEOUT_S = 180.0
_one_at_a_time = threading.Lock()  # LibreOffice refuses a second process on one profile


def program() -> Path | None:
    """LibreOffice's program: on the PATH, or where its installer puts it; None where there is none."""
    names = ("soffice", "libreoffice")
    found = next((path for path in map(shutil.which, names) if path is not None), None)
    if found is not None:
        return Path(found)
    usual = [Path("/Applications/LibreOffice.app/Contents/MacOS/soffice"), Path("/opt/libreoffice/program/soffice")]
    usual += [
        Path(os.environ[folder], "LibreOffice", "program", "soffice.com")
        for folder in ("PROGRAMFILES", "PROGRAMFILES(X86)")
        if folder in os.environ
    ]
    return next((path for path in usual if path.is_file()), None)


def without_program(suffix: str, kind: str) -> str:
    """Why a file of this suffix is not read where LibreOffice is missing, and what to do."""
    return f"no reader for {suffix}: install LibreOffice, which converts it, or save it as .{CONVERTED[kind]}"


def convert(name: str, data: bytes, kind: str, limits: Limits) -> bytes:
    """The bytes of a document in the format that CONVERTED says for its kind.

    Raises InputError without LibreOffice, and where it fails or takes longer than 180 s.
    """
    soffice = program()
    suffix = Path(name).suffix.lower()
    if soffice is None:
        raise InputError(without_program(suffix, kind))
    form = CONVERTED[kind]
    with _one_at_a_time, tempfile.TemporaryDirectory(prefix="q3e-office-") as folder:
        document = Path(folder, f"document{suffix}")
        document.write_bytes(data)
        output = Path(folder, "converted")
        said = _run([
            str(soffice), f"-env:UserInstallation={Path(_profile().name).as_uri()}", "--headless", "--norestore",
            "--nolockcheck", "--convert-to", form, "--outdir", str(output), str(document),
        ])  # fmt: skip
        converted = output / f"document.{form}"
        if not converted.is_file():
            raise InputError(f"cannot be converted by LibreOffice{said}; it may be damaged or need a password")
        limits.check_size(converted.stat().st_size)
        return converted.read_bytes()


def _run(command: list[str]) -> str:
    """What LibreOffice said of a failure, ready to stand in a sentence; it exits with 0 all the same."""
    try:
        # A group of processes, because soffice starts another program, which must end with it.
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=os.name == "posix",
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"cannot be converted: {command[0]} does not start: {error.strerror}") from None
    try:
        _, errors = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"was not converted by LibreOffice within {_TIMEOUT_S:.0f} s; save it in a newer format"
        ) from None
    finally:
        _end(process)
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.lower().startswith("error")]
    return f" ({' '.join(lines[0].split())[:160]})" if lines else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of it, also after Ctrl-C."""
    if process.poll() is not None:
        return
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()


@cache  # kept until this process ends: the first start fills it in seconds
def _profile() -> tempfile.TemporaryDirectory[str]:
    """A folder for LibreOffice's settings: not the user's, which a running LibreOffice has locked."""
    return tempfile.TemporaryDirectory(prefix="q3e-office-profile-", ignore_cleanup_errors=sys.platform == "win32")
