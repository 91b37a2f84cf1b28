"""Where a pinned file comes from and where it goes: the hub with its shared cache, ModelScope with our own folder.

Knows addresses, environment variables and folders; opens no connection. The hub cache's layout is the documented one:
blobs/SHA256 holds the file, snapshots/REVISION/FILE links to it, .locks/ keeps two downloads apart.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote, urlsplit

from q3e_local.errors import CardError, DownloadError
from q3e_local.files import data_folder, state_folder
from q3e_local.models.card import ModelFile

_HUB = "https://huggingface.co"
_MODELSCOPE = "https://www.modelscope.cn"
# For people whom the hub does not answer: advice names it, and it is asked only where the user chose it.
_A_MIRROR_HOST = "hf-mirror.com"
_A_MIRROR = f"https://{_A_MIRROR_HOST}"
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its variables

Source = Literal["auto", "hub", "modelscope"]


class NoAnswerError(Exception):
    """A source does not answer; the text says why. Never leaves this package."""


@dataclass(frozen=True)
class Pin:
    """The file that a card means: no file of another size or SHA-256 will do."""

    repo: str
    revision: str
    file: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Origin:
    """A source of a file, and the file's places here. Programs use `path`, which is `blob` or a link to it."""

    url: str
    path: Path
    blob: Path
    partial: Path
    lock: Path
    headers: dict[str, str] = field(default_factory=dict, repr=False)  # holds the user's token

    @property
    def host(self) -> str:
        return _without_password(urlsplit(self.url).netloc)

    @property
    def n_partial(self) -> int:
        """Bytes of the file that are here already."""
        try:
            return self.partial.stat().st_size
        except FileNotFoundError:
            return 0


def pin(file: ModelFile) -> Pin:
    """What a card says of a file. Raises CardError for a file that is shipped, or made here."""
    if file.repo is None or file.revision is None or file.sha256 is None:
        raise CardError(f"{file.file} has no pinned repository, revision and SHA-256: it cannot be downloaded")
    return Pin(file.repo, file.revision, file.file, file.size_bytes, file.sha256)


def places(pin: Pin) -> Iterator[Path]:
    """Where the file may be already."""
    yield _snapshot(pin)
    yield _own(pin)


def origins(pin: Pin, source: Source) -> list[Origin]:
    """The sources to ask, in this order."""
    makers = {"hub": _hub, "modelscope": _modelscope}
    return [make(pin) for name, make in makers.items() if source in ("auto", name)]


def link(origin: Origin) -> Path:
    """Make `path` lead to the blob, and answer it."""
    if origin.path == origin.blob:
        return origin.path
    origin.path.parent.mkdir(parents=True, exist_ok=True)
    origin.path.unlink(missing_ok=True)
    try:
        origin.path.symlink_to(os.path.relpath(origin.blob, origin.path.parent))
    except OSError:  # Windows without developer mode: there the cache holds the file itself
        origin.blob.replace(origin.path)
    return origin.path


def delete(path: Path, even_if_shared: bool = False) -> None:
    """Delete a file with the blob that it links to, and nothing outside its repository's folder in the cache.

    A blob that another snapshot links to stays, unless `even_if_shared`.
    """
    target, blob = path.resolve(), path.readlink() if path.is_symlink() else None
    path.unlink(missing_ok=True)
    if path.parent.parent == own_folder():
        with suppress(OSError):  # not empty
            path.parent.rmdir()
    if blob is None:
        return
    blob = Path(os.path.normpath(path.parent / blob))
    repo = next((folder.parent for folder in path.parents if folder.name == "snapshots"), None)
    if repo is None or blob.parent != repo / "blobs":
        return
    if even_if_shared:
        blob.unlink(missing_ok=True)
        if repo.parent.resolve() in target.parents:  # the cache's store of blobs that several repositories share
            target.unlink(missing_ok=True)
    elif not any(other.is_symlink() and other.resolve() == target for other in repo.glob("snapshots/**/*")):
        blob.unlink(missing_ok=True)


def is_offline() -> bool:
    """Whether the environment forbids the network; read now, not when some library was imported."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def own_folder() -> Path:
    """Where models that were made or copied here lie, and those from ModelScope."""
    return data_folder() / "models"


def hub_cache() -> Path:
    """The hub cache, which we share with other programs."""
    default_home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    home = Path(os.environ.get("HF_HOME", default_home))
    folder = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", home / "hub"))
    return Path(os.path.expandvars(folder)).expanduser()


def hub_endpoint() -> str:
    """The address of the hub or its mirror. Raises DownloadError for what is no address."""
    return _endpoint("HF_ENDPOINT", _HUB)


def mirror_advice() -> str:
    """What to do about a hub that does not answer: it may be a mirror that the user chose."""
    chosen = os.environ.get("HF_ENDPOINT", "").strip()
    if not chosen:
        return f"set HF_ENDPOINT to a mirror of the hub, such as {_A_MIRROR}"
    another = "another mirror" if _A_MIRROR_HOST in chosen else f"another mirror, such as {_A_MIRROR}"
    return f"unset HF_ENDPOINT, which is {_without_password(chosen)!r}, or set it to {another}"


def advice_on(origin: Origin) -> str:
    """A sentence about an address that the user chose, with a space behind it; empty for the hub's address."""
    is_chosen = bool(os.environ.get("HF_ENDPOINT", "").strip()) and origin.url.startswith(hub_endpoint())
    advice = mirror_advice()
    return f"{advice[0].upper()}{advice[1:]}. " if is_chosen else ""


def _hub(pin: Pin) -> Origin:
    blob = _repo(pin) / "blobs" / pin.sha256
    return Origin(
        url=f"{hub_endpoint()}/{pin.repo}/resolve/{pin.revision}/{quote(pin.file)}",
        path=_snapshot(pin),
        blob=blob,
        partial=blob.with_name(blob.name + ".incomplete"),  # the cache's own ending: `hf cache prune` knows it
        lock=hub_cache() / ".locks" / _repo(pin).name / f"{pin.sha256}.lock",
        headers=_authorization(),
    )


def _modelscope(pin: Pin) -> Origin:
    endpoint = _endpoint("Q3E_MODELSCOPE_ENDPOINT", _MODELSCOPE)
    path = _own(pin)
    return Origin(
        # ModelScope does not know the hub's commits: the SHA-256 pins the file.
        url=f"{endpoint}/models/{pin.repo}/resolve/master/{quote(pin.file)}",
        path=path,
        blob=path,
        partial=path.with_name(path.name + ".partial"),
        lock=state_folder() / "locks" / f"{pin.sha256}.lock",
    )


def _endpoint(variable: str, default: str) -> str:
    value = os.environ.get(variable, "").strip() or default
    if "://" not in value:  # as people write a host
        value = f"{'http' if _is_near(value) else 'https'}://{value}"
    try:
        parts = urlsplit(value)
        is_whole = bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", value)
        is_address = parts.scheme in ("http", "https") and is_whole
    except ValueError:  # brackets, or a port that is no number
        is_address = False
    if not is_address:
        got = _without_password(os.environ[variable])
        raise DownloadError(f"{variable} must be an address such as {default}, got {got!r}")
    return value.rstrip("/")


def _is_near(host: str) -> bool:
    """Whether `host[:port][/path]` is this machine or one of a private network, which rarely has a certificate."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_private
    except ValueError:  # a name, or no address at all
        return False


def _without_password(address: str) -> str:
    return address.rpartition("@")[2]


def _authorization() -> dict[str, str]:
    from huggingface_hub import constants, get_token

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _repo(pin: Pin) -> Path:
    return hub_cache() / f"models--{pin.repo.replace('/', '--')}"


def _snapshot(pin: Pin) -> Path:
    return _repo(pin) / "snapshots" / pin.revision / pin.file


def _own(pin: Pin) -> Path:
    # Below a part of the hash: two revisions of a file have one name.
    return own_folder() / pin.sha256[:12] / PurePosixPath(pin.file).name
