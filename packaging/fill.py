"""Write the Homebrew formula and the winget manifests of a release: its files' addresses and digests filled in.

    python packaging/fill.py --home https://example.org/q3e-local --dist dist --out filled

A formula names the source archive, a manifest the frozen program for Windows, each with its SHA-256: so both can only
be written once the files are there. What is filled into the templates is spelled `@NAME@` in them.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

TEMPLATES = Path(__file__).parent
_FIELD = re.compile(r"@([A-Z0-9_]+)@")


def values(home: str, dist: Path) -> dict[str, str]:
    """What stands for each field. Raises ValueError where a file of the release is missing, or there are several."""
    archive, windows = _only(dist, "q3e_local-*.tar.gz"), _only(dist, "q3e-local-*-windows-x64.zip")
    version = archive.name.removeprefix("q3e_local-").removesuffix(".tar.gz")
    release = f"{home.rstrip('/')}/releases/download/v{version}"
    return {
        "HOME": home.rstrip("/"),
        "VERSION": version,
        "DATE": datetime.now(UTC).date().isoformat(),
        "ARCHIVE_URL": f"{release}/{archive.name}",
        "ARCHIVE_SHA256": _digest(archive),
        "WINDOWS_URL": f"{release}/{windows.name}",
        "WINDOWS_SHA256": _digest(windows).upper(),
    }


def fill(out: Path, known: dict[str, str]) -> list[Path]:
    """Write each template with its fields filled in. Raises ValueError for a field that has no value."""
    written = []
    for template in sorted([*TEMPLATES.glob("homebrew/*.rb"), *TEMPLATES.glob("winget/*.yaml")]):
        text = template.read_text(encoding="utf-8")
        unknown = {name for name in _FIELD.findall(text) if name not in known}
        if unknown:
            raise ValueError(f"{template} has fields without a value: {', '.join(sorted(unknown))}")
        target = out / template.relative_to(TEMPLATES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_FIELD.sub(lambda field: known[field[1]], text), encoding="utf-8", newline="\n")
        written.append(target)
    return written


def _only(folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise ValueError(f"{folder} must have one file {pattern}, it has {len(files)}")
    return files[0]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", required=True, help="the project's page, whose releases have the files")
    parser.add_argument("--dist", type=Path, required=True, help="the folder of the release's files")
    parser.add_argument("--out", type=Path, required=True, help="the folder that gets formula and manifests")
    given = parser.parse_args()
    try:
        written = fill(given.out, values(given.home, given.dist))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(*written, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
