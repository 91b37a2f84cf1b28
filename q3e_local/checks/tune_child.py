"""The model that `q3e-local tune` measures, in a child process, which some settings may make llama.cpp end.

`MeasuredModel` is in the child, where the clock is; `ModelInChild` is its other end.
"""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import q3e_local
from q3e_local.checks.bench import Texts
from q3e_local.errors import CrashError
from q3e_local.llama.child import Child
from q3e_local.llama.settings.defaults import Settings
from q3e_local.llama.settings.kept import Platform
from q3e_local.llama.settings.placement import Placement

if TYPE_CHECKING:
    from q3e_local.llama.engine import LlamaEngine


class MeasuredModel:
    """A loaded model and texts for it, which `seed` decides. Raises what loading raises."""

    def __init__(self, path: Path, options: dict[str, Any], seed: int) -> None:
        self._embedder = q3e_local.load(path, **options)
        self._engine = cast("LlamaEngine", self._embedder.engine)  # `load` makes no other
        self._texts = Texts(path, self._engine.tokenize, seed)

    def platform(self) -> Platform:
        from q3e_local.llama import loading

        return loading.platform(self._engine.placement, self._engine.kernels)

    def placement(self) -> Placement:
        return self._engine.placement

    def use(self, settings: Settings) -> None:
        self._engine.use(settings)

    def make(self, n_texts: int, n_tokens: int) -> list[str]:
        return self._texts(n_texts, n_tokens)

    def speed(self, texts: list[str]) -> float:
        began = time.perf_counter()
        result = self._embedder.embed_documents(texts)
        return sum(result.prompt_tokens) / max(time.perf_counter() - began, 1e-9)


class ModelInChild:
    """A MeasuredModel in a child process. A call that finds no process, the first or one after a crash, starts one.

    `options` are those of `load`. Each call may raise CrashError.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        self._path, self._options = path, options
        self._child: Child | None = None
        self._n_starts = 0

    @cached_property
    def platform(self) -> Platform:
        """Where the result counts."""
        platform: Platform = self._ask("platform")
        return platform

    @cached_property
    def placement(self) -> Placement:
        """Where the layers are."""
        placement: Placement = self._ask("placement")
        return placement

    def use(self, settings: Settings) -> None:
        """Go on with these settings."""
        self._ask("use", settings)

    def make(self, n_texts: int, n_tokens: int) -> list[str]:
        """Make texts of exactly so many tokens, which no earlier call made."""
        texts: list[str] = self._ask("make", n_texts, n_tokens)
        return texts

    def speed(self, texts: list[str]) -> float:
        """Embed the texts, and return tokens a second."""
        speed: float = self._ask("speed", texts)
        return speed

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _ask(self, method: str, *arguments: object) -> Any:
        if self._child is None:
            self._child = Child(MeasuredModel, self._path, self._options, self._n_starts)
            self._n_starts += 1
        try:
            return self._child.ask(method, *arguments)
        except CrashError:
            self.close()
            raise
