"""Packages from their registries, each by its own client, held against the SHA-256 that is pinned, and unpacked."""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class FetchError(Exception):
    """A package could not be had, or is not the one that is pinned."""


@dataclass(frozen=True)
class Package:
    name: str
    kind: str
    version: str
    sha256: str

    @property
    def folder_name(self) -> str:
        """Its name, version and the first digits of its sum: a corrected sum is checked anew."""
        return re.sub(r"[^\w.+-]+", "-", f"{self.name}-{self.version}-{self.sha256[:8]}").strip("-")


def command(package: Package, folder: Path) -> list[str]:
    """What the client of the package's registry is called with, to put the file into `folder`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
    return {
        "pypi": [*pip, "--dest", str(folder), f"{package.name}=={package.version}"],
        "debian": ["apt-get", "download", f"{package.name}={package.version}"],
        "npm": ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package.name}@{package.version}"],
    }[package.kind]


def download(package: Package, folder: Path) -> Path:
    """The package's file, the only one in `folder`."""
    client = command(package, folder.resolve())
    if not shutil.which(client[0]):
        raise FetchError(f"{package.name} {package.version} needs {client[0]}, which is not here")
    done = subprocess.run(client, cwd=folder, capture_output=True, text=True)
    files = list(folder.iterdir())
    if done.returncode != 0 or len(files) != 1:
        said = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise FetchError(f"{package.name} {package.version} could not be downloaded: {said or client[0]}")
    return files[0]


def check(package: Package, file: Path) -> None:
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != package.sha256:
        raise FetchError(
            f"{package.name} {package.version} is not the package that is pinned: "
            f"expected SHA-256 {package.sha256}, found {found}"
        )


def unpack(file: Path, tree: Path) -> None:
    if file.suffix == ".deb":
        done = subprocess.run(["dpkg-deb", "-x", file, tree], capture_output=True, text=True)
        if done.returncode != 0:
            raise FetchError(f"{file.name} could not be unpacked: {done.stderr.strip()}")
    elif file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(tree)
    else:
        with tarfile.open(file) as archive:
            archive.extractall(tree, filter="data")


def fetch(package: Package, folder: Path) -> Path:
    """The folder of what the package holds; it is downloaded once, and is there only when its sum is right."""
    place = folder / package.folder_name
    if not place.exists():
        partial = place.with_name(place.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        file = download(package, partial)
        check(package, file)
        unpack(file, partial / "tree")
        partial.rename(place)
    return place / "tree"
