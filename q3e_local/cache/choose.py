"""Which cache a setting means: on, off, a file, or a Redis server.

Knows settings and their variables; loads SQLite or Redis when one is chosen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from q3e_local.cache import SIZE_BYTES, VectorCache
from q3e_local.cache.outage import logger
from q3e_local.errors import OptionError
from q3e_local.files import cache_folder
from q3e_local.wording.address import unquoted

_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_SIZE_MIN = 1_000_000

Setting = bool | str | os.PathLike[str] | None


def open_cache(setting: Setting, environ: Mapping[str, str] | None = None) -> VectorCache | None:
    """The cache: True or "on" is the usual file, a `redis://` address a server, other text a path, False none.

    `Q3E_CACHE_SIZE` bounds a file. Nothing is opened yet. Raises OptionError for a text that means none of these.
    """
    text = unquoted(os.fspath(setting)) if isinstance(setting, str | os.PathLike) else str(bool(setting))
    if not text:
        raise OptionError("cache must be on, off, a path or redis://host:port/db, got an empty text")
    if is_off(text):
        return None
    if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        if not text.lower().startswith(("redis://", "rediss://")):
            raise OptionError(
                f"a cache's address begins with redis:// or rediss://, got {text.partition('://')[0]}://"
            )
        from q3e_local.cache.redis import RedisCache

        return RedisCache(text)
    size = size_bytes(os.environ if environ is None else environ)
    try:
        from q3e_local.cache.sqlite import SqliteCache
    except ImportError as error:  # apsw is compiled, and may not fit the machine
        logger.warning("there is no cache, because SQLite cannot be loaded: %s", error)
        return None
    if text.lower() in _ON:
        return SqliteCache(cache_folder() / "vectors.sqlite", size)
    path = Path(text)
    if isinstance(setting, str) and path.name == text and not path.suffix and not path.exists():
        # A word such as "disabled" would make a file of that name, wherever the user stands.
        raise OptionError(f"cache must be on, off, a path or redis://host:port/db, got {text}; as a file: ./{text}")
    return SqliteCache(path, size)


def chosen(flag: bool | None, environ: Mapping[str, str] | None = None) -> str:
    """The setting of a command: its flag says on or off, `Q3E_CACHE` says where. On without either."""
    variable = unquoted((os.environ if environ is None else environ).get("Q3E_CACHE", "")) or "on"
    if flag is None:
        return variable
    if not flag:
        return "off"
    return "on" if is_off(variable) else variable


def is_off(text: str) -> bool:
    """Whether this setting means no cache."""
    return text.lower() in _OFF


def size_bytes(environ: Mapping[str, str]) -> int:
    """Bytes of `Q3E_CACHE_SIZE`, such as `500MB` or `2GiB`; 1 GiB without it. Raises OptionError."""
    text = unquoted(environ.get("Q3E_CACHE_SIZE", ""))
    if not text:
        return SIZE_BYTES
    match = _SIZE.fullmatch(text)
    if match is None:
        raise OptionError(f"Q3E_CACHE_SIZE must be a size such as 500MB or 2GB, got {text!r}")
    number, unit, binary = match.groups()
    n_bytes = int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit.lower() or " "))
    if not _SIZE_MIN <= n_bytes <= 1 << 50:
        raise OptionError(f"Q3E_CACHE_SIZE must be 1MB to 1024TiB, got {text}; to do without: Q3E_CACHE=off")
    return n_bytes
