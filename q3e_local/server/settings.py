"""A server's settings: options, else `Q3E_*`, else Ollama's variables, else defaults; and the config file's aliases.

Knows text and limits; opens no socket.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from q3e_local.cache.choose import chosen, open_cache
from q3e_local.errors import OptionError
from q3e_local.models.own_names import Alias, read_aliases
from q3e_local.wording import address
from q3e_local.wording.address import unquoted

LogFormat = Literal["text", "json"]

# What /api/version answers: the release of Ollama whose wire format this server follows. Some clients refuse old
# numbers. Our own version is in the `server` header of every answer.
OLLAMA_VERSION = "0.32.7"

KEEP_ALIVE_S = 300.0

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# subtle: with an optional point between two runs of digits, matching would take the square of their number.
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PIECE = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)")
_DURATION_CHARACTERS_MAX = 1_000
_DURATION = re.compile(rf"[+-]?(?:{_PIECE.pattern})+")


@dataclass(frozen=True)
class ServerSettings:
    """How one server runs. Raises OptionError for a value outside its limits."""

    host: str = address.DEFAULT_HOST  # empty: all addresses
    port: int = address.DEFAULT_PORT  # 0: any free one
    models: tuple[str, ...] = ()  # loaded at start; others on first use
    indexes: tuple[str, ...] = ()  # that /api/search searches, by name or path
    keep_alive_s: float = KEEP_ALIVE_S  # of a model nobody uses; below 0: never unload
    max_loaded: int = 2  # models in memory at once
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()  # of web pages, beside those of this machine
    max_queue: int = 4096  # texts that may wait before those of a request, for each model
    max_items: int = 2048  # texts in one request, as OpenAI's limit
    max_body_bytes: int = 32 * 1024 * 1024
    unix_socket: Path | None = None  # instead of host and port
    log_format: LogFormat = "text"
    cache: str = field(default="off", repr=False)  # which one, as Q3E_CACHE says it; may hold a password
    explain: bool = False  # log how each model runs, and why
    aliases: Mapping[str, Alias] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {
            "port": (0, 65_535),
            "max_loaded": (1, 64),
            "max_queue": (1, 1_000_000),
            "max_items": (1, 1_000_000),
            "max_body_bytes": (1024, 1 << 40),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise OptionError(f"{name} must be between {low} and {high}, got {value}")
        if self.log_format not in get_args(LogFormat):
            raise OptionError(f"log_format must be text or json, got {self.log_format!r}")
        for key in self.api_keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise OptionError("an API key must be printable ASCII without spaces, and not empty")

    @property
    def is_public(self) -> bool:
        """Whether other machines reach it."""
        return self.unix_socket is None and not address.is_loopback(self.host)

    def doubts(self) -> list[str]:
        """What is allowed and was probably not meant, a sentence each."""
        if self.models and self.keep_alive_s == 0:
            return ["keep_alive 0 unloads what --model loads at once; give another --keep-alive, or no --model"]
        return []


def settings(
    options: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, config: Path | None = None
) -> ServerSettings:
    """The settings for these options (None and () mean not given), this environment and this config file.

    Raises OptionError naming the option or variable, or the file and key.
    """
    environ = os.environ if environ is None else environ
    fields = _from_ollamas_variables(environ) | _from_our_variables(environ)
    fields |= {name: value for name, value in (options or {}).items() if value not in (None, ())}
    if isinstance(fields.get("keep_alive_s"), str):
        fields["keep_alive_s"] = keep_alive(fields["keep_alive_s"])
    fields["cache"] = chosen(fields.get("cache"), environ)
    open_cache(fields["cache"], environ)
    if "unix_socket" in fields:
        fields["unix_socket"] = Path(fields["unix_socket"]).expanduser()
    return ServerSettings(**fields, aliases=read_aliases(config))


def duration_s(text: str) -> float | None:
    """Seconds of a Go duration such as `1h30m`, `1.5h`, `-1s` or `0`; None for what is none."""
    if text in ("0", "+0", "-0"):
        return 0.0
    if len(text) > _DURATION_CHARACTERS_MAX or not _DURATION.fullmatch(text):
        return None
    seconds = math.fsum(float(number) * _UNITS_S[unit] for number, unit in _PIECE.findall(text))
    if seconds * 1e9 > 2**63 - 1:  # Go counts nanoseconds in 64 bits
        return None
    return -seconds if text.startswith("-") else seconds


def keep_alive(text: str) -> float:
    """Seconds for `--keep-alive`: a duration or a bare number of seconds; below 0 means for ever.

    Raises OptionError for anything else.
    """
    seconds = _keep_alive_s(unquoted(text))
    if seconds is None:
        raise OptionError(f"keep_alive must be seconds or a duration such as 5m, 1h30m or -1, got {text!r}")
    return seconds


def _keep_alive_s(text: str) -> float | None:
    seconds = duration_s(text)
    if seconds is None and re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        seconds = float(text)
    return seconds


def _from_ollamas_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if unquoted(environ.get("OLLAMA_HOST", "")):
        listen = address.parse(environ["OLLAMA_HOST"])
        fields |= {"host": listen.host, "port": listen.port}
    alive = unquoted(environ.get("OLLAMA_KEEP_ALIVE", ""))
    if alive:
        # As in Ollama, what cannot be read is the default, and whatever is below 0 means for ever.
        seconds = _keep_alive_s(alive)
        fields["keep_alive_s"] = KEEP_ALIVE_S if seconds is None else seconds
    origins = _listed(environ.get("OLLAMA_ORIGINS", ""))
    return fields | ({"origins": origins} if origins else {})


def _from_our_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, (variable, read) in _VARIABLES.items():
        text = unquoted(environ.get(variable, ""))
        try:
            value = read(text) if text else ()
        except ValueError:
            raise OptionError(f"{variable} must be a whole number, got {text!r}") from None
        if value != ():
            fields[name] = value
    return fields


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise ValueError
    return int(text)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for part in (unquoted(part) for part in unquoted(text).split(",")) if part)


# The field of ServerSettings, the variable, and how its text is read.
_VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "host": ("Q3E_HOST", str),
    "port": ("Q3E_PORT", _whole_number),
    "unix_socket": ("Q3E_UNIX_SOCKET", str),
    "models": ("Q3E_MODELS", _listed),
    "indexes": ("Q3E_INDEXES", _listed),
    "keep_alive_s": ("Q3E_KEEP_ALIVE", str),
    "max_loaded": ("Q3E_MAX_LOADED", _whole_number),
    "max_queue": ("Q3E_MAX_QUEUE", _whole_number),
    "max_items": ("Q3E_MAX_ITEMS", _whole_number),
    "max_body_bytes": ("Q3E_MAX_BODY_BYTES", _whole_number),
    "api_keys": ("Q3E_API_KEY", _listed),
    "origins": ("Q3E_ORIGINS", _listed),
    "log_format": ("Q3E_LOG_FORMAT", str),
}
