"""Bring a checkpoint, the folder a model is converted from, into the hub cache.

Through huggingface_hub file by file: many small files and no pinned checksums, unlike the model files that
`fetch` brings. Knows which files a conversion reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from q3e_local.errors import DownloadError, HubUnreachableError, ModelNotHereError
from q3e_local.models.download import origins
from q3e_local.models.download.silence import Silence

_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
_WELCOME = ("modules.json", "1_Pooling/config.json", "generation_config.json", "chat_template.jinja", "README.md")
_PATIENCE_S = 20.0  # with a hub that is asked whether it is there
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


def fetch_checkpoint(
    repo: str,
    revision: str,
    *,
    offline: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> Path:
    """The checkpoint's folder, downloading what is missing of it; `progress(what, n_bytes, total)` for each shard.

    While the hub does not answer at the start, `on_wait` is given a line that says so, in another thread.
    Raises ModelNotHereError when offline, HubUnreachableError, or DownloadError when the hub refuses.
    """
    if not (offline or origins.is_offline()):
        _probe(repo, revision, on_wait)
    folder = _file(repo, revision, _NEEDED[0], offline).parent
    for name in _NEEDED[1:]:
        _file(repo, revision, name, offline)
    for name in _WELCOME:
        _optional(repo, revision, name, offline)
    index = _optional(repo, revision, _INDEX, offline)
    shards = [_SINGLE] if index is None else _shards(index)
    for number, name in enumerate(shards, start=1):
        what = f"downloading {name} ({number} of {len(shards)})"
        path = _file(repo, revision, name, offline, partial(progress, what) if progress is not None else None)
        if progress is not None:
            progress(what, path.stat().st_size, path.stat().st_size)
    return folder


def _probe(repo: str, revision: str, on_wait: Callable[[str], None]) -> None:
    """Find out in seconds that there is no way to the hub, for which huggingface_hub takes minutes."""
    import httpx2

    address = f"{origins.hub_endpoint()}/{repo}/resolve/{revision}/{_NEEDED[0]}"

    def report(silent_s: float) -> None:
        on_wait(f"waiting for {origins.hub_endpoint()}: no answer for {silent_s:.0f} s, at most {_PATIENCE_S:.0f} s")

    try:
        with Silence(report):
            httpx2.head(address, timeout=httpx2.Timeout(_PATIENCE_S, connect=5))
    except httpx2.TransportError as error:
        raise _unreachable(repo, str(error)) from None


def _unreachable(repo: str, reason: str) -> HubUnreachableError:
    return HubUnreachableError(
        f"cannot reach {origins.hub_endpoint()} for {repo} ({reason}); {origins.mirror_advice()}; or bring the "
        "folder from another machine"
    )


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DownloadError(f"{index} is no index of shards; the repository is broken") from None


def _optional(repo: str, revision: str, name: str, offline: bool) -> Path | None:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return _file(repo, revision, name, offline)
    except ModelNotHereError:
        return None
    except DownloadError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise


def _file(
    repo: str, revision: str, name: str, offline: bool, progress: Callable[[int, int], None] | None = None
) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    offline = offline or origins.is_offline()
    try:
        return Path(
            hf_hub_download(
                repo,
                name,
                revision=revision,
                cache_dir=origins.hub_cache(),
                endpoint=origins.hub_endpoint(),
                local_files_only=offline,
                tqdm_class=_told(progress),
            )
        )
    except LocalEntryNotFoundError as error:
        if offline:
            raise ModelNotHereError(f"{name} of {repo} is not on this machine; download it with a network") from None
        raise _unreachable(repo, "it broke off") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise DownloadError(f"cannot download {name} of {repo} at {revision}: {error}") from error


def _told(progress: Callable[[int, int], None] | None) -> type[Any]:
    """huggingface_hub's bar without the drawing. It may make two for a file: what came, and what is on disk."""
    from huggingface_hub.utils.tqdm import tqdm

    class Told(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            begin: Callable[..., None] = super().__init__
            begin(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if progress is not None and self.total:
                progress(int(self.n), int(self.total))

    return Told
