"""Which kernels compute on the CPU: the user's wish, the choice and its reason, as all parts of the program say it.

Reads a variable of the environment. Opens no library and knows nothing of llama.cpp, so that a server can say what
its workers chose.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from q3e_local.errors import OptionError

VARIABLE = "Q3E_KERNELS"
OFF = "off"
VARIANTS = ("amx", "avx512", "avxvnni", "avx2")  # of ours, the fastest first


@dataclass(frozen=True)
class Kernels:
    """Who computes the products and the attention of a CPU."""

    variant: str | None  # of ours; None: llama.cpp's own kernels alone
    why: str  # they, or this variant, and not a faster one
    is_wrong: bool = False  # whether something is broken, and not just missing or switched off
    faster: tuple[str, ...] = ()  # what to do for more speed

    @property
    def name(self) -> str:
        """The variant, or `off`."""
        return self.variant or OFF

    @property
    def explained(self) -> str:
        """In a line, as settings are: `kernels avx2 (the fastest that this CPU runs)`."""
        return f"kernels {self.name} ({self.why})"

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"variant": self.name, "why": self.why, "faster": list(self.faster)}


@dataclass(frozen=True)
class Taken:
    """Operations that our kernels computed."""

    products: int = 0
    attentions: int = 0

    def since(self, before: Taken) -> Taken:
        """What came after `before`."""
        return Taken(self.products - before.products, self.attentions - before.attentions)


def wanted() -> str | None:
    """What $Q3E_KERNELS names: `off`, a variant, or nothing. Raises OptionError for anything else."""
    named = os.environ.get(VARIABLE, "")
    if named and named not in (OFF, *VARIANTS):
        raise OptionError(f"{VARIABLE} must be {OFF} or one of {', '.join(VARIANTS)}, got {named!r}")
    return named or None
