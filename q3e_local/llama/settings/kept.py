"""The settings that `q3e-local tune` found fastest: a file for each model, machine and llama.cpp.

Knows files in the state folder; leaves the meaning of settings to defaults.py, and measuring to checks/tune.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.files import land, state_folder
from q3e_local.llama.kernels.choice import OFF
from q3e_local.llama.settings.defaults import TUNABLE, Settings, Tuned, settle
from q3e_local.llama.settings.placement import CPU, Placement

logger = logging.getLogger(__name__)

_LAYOUT = 4  # of the file; a change of Platform or Tuned is another
# 3 knew that a GPU computed, and not which; 2, of version 0.1.0, had no kernels of ours, and more settings.
_OLD_LAYOUTS = (2, 3)


@dataclass(frozen=True)
class Platform:
    """Where settings were found fastest, and where alone they count. None is not known, and agrees with anything."""

    binding: str  # version of llama-cpp-python
    features: str | None = None  # of the CPU, as far as llama.cpp's build uses them
    place: str | None = None  # of the layers: `CPU`, or which GPUs and how many of the layers
    kernels: str | None = None  # our variant that computed, or `off`
    cpu: str = ""
    n_cores: int = 0
    n_cpus: int = 0


def here(
    binding: str, features: frozenset[str] | None = None, place: str | None = None, kernels: str | None = None
) -> Platform:
    """This machine, as far as this process may use it."""
    return Platform(
        binding,
        None if features is None else " ".join(sorted(features)),
        place,
        kernels,
        machine.cpu_name(),
        machine.physical_cores(),
        machine.logical_cpus(),
    )


def find(digest: str, platform: Platform) -> Tuned | None:
    """What was found for this model file there; the newest, should there be several. A damaged file is set aside."""
    kept = [content for path in _files(digest) if (content := _read(path)) is not None]
    return max((tuned for where, tuned in kept if _agree(where, platform)), key=lambda tuned: tuned.day, default=None)


def planned(digest: str, config: EngineConfig, placement: Placement) -> Settings:
    """The settings of this model with its layers there, as far as they are known before llama.cpp is loaded."""
    host = placement.host(machine.physical_cores())
    return settle(config, host, tuned_before_loading(digest, placement))


def tuned_before_loading(digest: str, placement: Placement) -> Tuned | None:
    """What was found for this model file with its layers there, by a llama.cpp that is not loaded yet."""
    from importlib.metadata import version  # slow to import, and only a server and `show` need it

    return find(digest, here(version("llama-cpp-python"), place=placement.place))


def keep(
    digest: str, platform: Platform, tuned: Tuned, measured: Sequence[dict[str, Any]] = ()
) -> tuple[Path, Tuned]:
    """Use these settings from now on; a setting that is None stays as it was found before.

    Returns the file, and the settings in it. `measured` is in the file for people. Raises OSError.
    """
    path = _file(digest, platform)
    before = _read(path)
    if before is not None:
        names = (*TUNABLE, "n_gpu_layers")
        values = {name: getattr(before[1], name) for name in names if getattr(tuned, name) is None}
        tuned = replace(tuned, **values)
    content = {"layout": _LAYOUT, "place": asdict(platform), "tuned": asdict(tuned), "measured": list(measured)}
    land(path, json.dumps(content, indent=1))
    return path, tuned


def forget(digest: str) -> int:
    """Forget all that was found for this model file. Returns how many files that were."""
    n_files = 0
    for path in _files(digest):
        path.unlink(missing_ok=True)
        n_files += 1
    return n_files


def _folder() -> Path:
    return state_folder() / "tuned"


def _file(digest: str, platform: Platform) -> Path:
    """The file for this layout: an older version of q3e-local must not write over the file of a newer version."""
    names = json.dumps({"layout": _LAYOUT, **asdict(platform)}, sort_keys=True)
    return _folder() / f"{digest[:16]}-{hashlib.sha256(names.encode()).hexdigest()[:12]}.json"


def _files(digest: str) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(_folder().glob(f"{digest[:16]}-*.json"))


def _agree(platform: Platform, where: Platform) -> bool:
    pairs = zip(astuple(platform), astuple(where), strict=True)
    return all(a is None or b is None or a == b for a, b in pairs)


def _read(path: Path) -> tuple[Platform, Tuned] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if type(content["layout"]) is int and content["layout"] not in (_LAYOUT, *_OLD_LAYOUTS):
            logger.info("%s is of another version of q3e-local, and is not used", path)
            return None
        place, found = content["place"], content["tuned"]
        if content["layout"] in _OLD_LAYOUTS:
            if (on_gpu := place.pop("on_gpu", None)) is True:
                logger.info("%s does not say for which GPU it is, and is not used", path)
                return None
            place["place"] = None if on_gpu is None else CPU
            found |= {"n_gpu_layers": None}
        platform = Platform(**{"kernels": OFF} | place)
        tuned = Tuned(**{field.name: found[field.name] for field in fields(Tuned)})
        date.fromisoformat(tuned.day)
        # Raises for values that it cannot have.
        EngineConfig(n_threads=tuned.n_threads, n_batch=tuned.n_batch, n_gpu_layers=tuned.n_gpu_layers)
        return platform, tuned
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("cannot read %s: %s; going on with defaults", path, error.strerror)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        aside = path.with_suffix(".damaged")
        with suppress(OSError):
            path.replace(aside)
        logger.warning("%s is damaged (%s) and set aside; tune again", path, error)
    return None
