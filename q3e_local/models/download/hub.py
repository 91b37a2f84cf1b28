"""Bring a checkpoint, the folder a model is converted from, into the hub cache.

Through huggingface_hub file by file: a checkpoint has many small files and no pinned checksums, unlike the files that
`fetch` brings. Knows which files a conversion reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from q3e_local.convert.shards import INDEX, SINGLE
from q3e_local.errors import DownloadError, HubUnreachableError, ModelNotHereError
from q3e_local.models.download import origins
from q3e_local.models.download.silence import Silence

_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
_WELCOME = ("modules.json", "1_Pooling/config.json", "generation_config.json", "chat_template.jinja", "README.md")
_PATIENCE_S = 20.0  # with a hub that is asked whether it is there


def fetch_checkpoint(
    repo: str,
    revision: str,
    *,
    offline: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, n_bytes, total: None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> Path:
    """The checkpoint's folder, downloading what is missing of it; `progress(what, n_bytes, total)` for each shard.

    While the hub does not answer at the start, `on_wait` gets a line that says so, in another thread.
    Raises ModelNotHereError when offline, HubUnreachableError, or DownloadError when the hub refuses.
    """
    offline = offline or origins.is_offline()
    if not offline:
        _probe(repo, revision, on_wait)
    bring = partial(_bring, repo, revision, offline)
    paths = [bring(name) for name in _NEEDED]
    index, *_ = [_bring_if_there(bring, name) for name in (INDEX, *_WELCOME)]
    shards = [SINGLE] if index is None else _shards(index)
    for number, name in enumerate(shards, start=1):
        show = partial(progress, f"downloading {name} ({number} of {len(shards)})")
        size_bytes = bring(name, show).stat().st_size
        show(size_bytes, size_bytes)
    return paths[0].parent


def _probe(repo: str, revision: str, on_wait: Callable[[str], None]) -> None:
    """Find out in seconds that there is no way to the hub, for which huggingface_hub takes minutes."""
    import httpx2

    hub = origins.hub_endpoint()

    def report(silent_s: float) -> None:
        on_wait(f"waiting for {hub}: no answer for {silent_s:.0f} s, at most {_PATIENCE_S:.0f} s")

    try:
        with Silence(report):
            timeout = httpx2.Timeout(_PATIENCE_S, connect=5)
            httpx2.head(f"{hub}/{repo}/resolve/{revision}/{_NEEDED[0]}", timeout=timeout)
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


def _bring_if_there(bring: Callable[[str], Path], name: str) -> Path | None:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return bring(name)
    except ModelNotHereError:
        return None
    except DownloadError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise


def _bring(
    repo: str, revision: str, offline: bool, name: str, show: Callable[[int, int], None] = lambda n_bytes, total: None
) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(
                repo,
                name,
                revision=revision,
                cache_dir=origins.hub_cache(),
                endpoint=origins.hub_endpoint(),
                local_files_only=offline,
                tqdm_class=_bar(show),
            )
        )
    except LocalEntryNotFoundError as error:
        if offline:
            raise ModelNotHereError(f"{name} of {repo} is not on this machine; download it with a network") from None
        raise _unreachable(repo, "it broke off") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise DownloadError(f"cannot download {name} of {repo} at {revision}: {error}") from error


def _bar(show: Callable[[int, int], None]) -> type[Any]:
    """huggingface_hub's bar without the drawing. It may make two for a file: what came, and what is on disk."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            begin: Callable[..., None] = super().__init__
            begin(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.total:
                show(int(self.n), int(self.total))

    return Bar
