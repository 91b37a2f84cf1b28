"""A model in memory: its weights where they were planned to be, and its contexts; or on fewer layers of a GPU.

Knows what to load, and what to load anew where memory is refused; leaves threads to engine.py, the plan to
settings/planning.py, and what a context can do without to contexts.py. Everything is called on the thread that
computes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TypeVar

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, GpuMemoryError, ModelFileError, NotEnoughMemoryError, OptionError
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import binding, devices
from q3e_local.llama.contexts import Contexts, explaining
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.defaults import N_BATCH_ON_GPU, TUNABLE, Reason, Settings, settle
from q3e_local.llama.settings.memory import ContextPlan, as_asked
from q3e_local.llama.settings.placement import Placement
from q3e_local.llama.settings.planning import (
    check_without_gpus,
    chosen,
    fewer,
    freed,
    plan,
    ram_bytes,
    steps_down,
    unless_beaten,
    with_context,
)
from q3e_local.llama.tap_proof import tap_is_proved
from q3e_local.wording.counts import size

logger = logging.getLogger(__name__)
T = TypeVar("T")


def placed(info: ModelInfo, config: EngineConfig, kernels: Kernels) -> Placement:
    """Where the layers are to be: as the options say, or else as many as fit on a GPU, unless the CPU is faster.

    Raises OptionError for a device that is not here, or layers where there is no GPU.
    """
    if config.n_gpu_layers == 0 or config.devices == ():
        return Placement(info.n_layer, why="as asked")
    if not binding.can_offload():
        check_without_gpus(config)
        return Placement(info.n_layer, why="this llama.cpp was built without a GPU")
    some = chosen(devices.devices(), config.devices)
    if not some and config.n_gpu_layers is not None:
        raise OptionError(
            f"n_gpu_layers must be 0, got {config.n_gpu_layers}: llama.cpp sees no GPU here; "
            "q3e-local doctor says more",
            "n_gpu_layers",
        )
    context = as_asked(config, config.n_batch or N_BATCH_ON_GPU)
    placement = plan(info, context, some, config.n_gpu_layers)
    return unless_beaten(placement, config, kept.find(info.digest, platform(placement, kernels)))


def platform(placement: Placement, kernels: Kernels) -> kept.Platform:
    """Where tuned settings count: this machine, build of llama.cpp, kernels and devices."""
    return kept.here(binding.version(), binding.features(), placement.place, kernels.name)


def load(
    info: ModelInfo,
    config: EngineConfig,
    kernels: Kernels,
    between: Callable[[], None],
    no_tokenizing: Callable[[], AbstractContextManager[None]],
) -> LoadedModel:
    """Load a model where it is to be, with the settings for that place, and say how it runs to those who ask."""
    placement = placed(info, config, kernels)
    if placement.is_short:
        logger.warning("%s: %s", info.path.stem, placement.explained)
    loaded = LoadedModel(info, config, placement, kernels, between, no_tokenizing)
    lines = [kernels.explained, *(f"for more speed, {hint}" for hint in kernels.faster)]
    is_asked_for = config.n_gpu_layers is not None or config.devices is not None or config.kv_type != "f16"
    if binding.can_offload() or is_asked_for:
        lines.append(loaded.placement.explained)
        # As they were asked before the model came.
        lines.extend(f"{device}, and the model takes {size(share)} of it" for device, share in loaded.placement.takes)
    lines.extend(map(loaded.settings.explained, TUNABLE))
    if config.kv_type != "f16":
        lines.append(f"kv_type {config.kv_type} (given)")
    for line in lines:
        explaining.info("%s: %s", info.path.stem, line)
    return loaded


class LoadedModel:
    """Weights and contexts. Raises ModelFileError where llama.cpp refuses the file, NotEnoughMemoryError.

    Where a GPU refuses memory, fewer layers go there, and in the end none; that is said once for each step.
    """

    def __init__(
        self,
        info: ModelInfo,
        config: EngineConfig,
        placement: Placement,
        kernels: Kernels,
        between: Callable[[], None],
        no_tokenizing: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`no_tokenizing` is entered while weights change that translate texts into ids too."""
        self.info, self.placement, self.tap, self.n_seq_max = info, placement, config.tap, config.n_seq_max
        self._config, self._kernels, self._between, self._no_tokenizing = config, kernels, between, no_tokenizing
        self.settings = self._settled()
        self._weights: binding.Weights | None = None
        self._contexts: Contexts | None = None
        self._is_closed = False
        self.n_bytes = 0  # in the machine and on GPUs: weights and the context for batches
        self._n_keepable = info.n_ctx_train  # of the contexts that were freed
        self._load_where_it_fits()

    @property
    def weights(self) -> binding.Weights:
        """Raises EngineError once they are freed."""
        return _there(self._weights)

    @property
    def contexts(self) -> Contexts:
        """Raises EngineError once they are freed."""
        return _there(self._contexts)

    @property
    def n_keepable(self) -> int:
        """As `Engine` says."""
        contexts = self._contexts  # first: freeing them counts what they say before it takes them away
        return min(self._n_keepable if contexts is None else contexts.n_keepable, self._n_keepable)

    @property
    def is_lost(self) -> bool:
        """Whether nothing is in memory, because it could not be loaded anew."""
        return self._contexts is None and not self._is_closed

    def look(self) -> None:
        """Ask the devices for the memory that they have free now."""
        if self.placement.on_gpu:
            self.placement = replace(self.placement, devices=devices.again(self.placement.devices))

    def fewer_layers(self, why: GpuMemoryError, n_tokens: int = 0) -> None:
        """Load anew with fewer layers on the GPU, or none, for a batch or for a text of `n_tokens`.

        Raises NotEnoughMemoryError, and leaves the layers where they are, where that would not help the text. What
        cannot be loaded anew is lost until `ready`. Batches may be smaller then.
        """
        if n_tokens:
            self._check_elsewhere(n_tokens)
        with self._no_tokenizing():
            self._give_up(why)
            self._load_where_it_fits()

    def ready(self) -> Contexts:
        """The contexts, after what is lost was loaded again. Raises what loading raises, and may be called again."""
        if self.is_lost:
            with self._no_tokenizing():
                self._load_where_it_fits()
        return self.contexts

    def free(self) -> None:
        """Free everything for good; twice is fine."""
        self._is_closed = True
        self._unload()

    def _unload(self) -> None:
        if self._contexts is not None:
            self._n_keepable = self.n_keepable
            self._contexts.free()
            self._contexts = None
        if self._weights is not None:
            self._weights.free()
            self._weights = None

    def _check_elsewhere(self, n_tokens: int) -> None:
        """Raise NotEnoughMemoryError where no number of layers on the GPU leaves memory for a text of `n_tokens`."""
        self.contexts.free_long()  # which holds no text any more, so that its memory counts as free
        alone = freed(devices.again(self.placement.devices), self.placement.takes)
        places = steps_down(self.placement, self.info, self._batch_plan, alone)
        self.contexts.check_elsewhere(n_tokens, places)

    @property
    def _batch_plan(self) -> ContextPlan:
        return as_asked(replace(self._config, tap=self.tap), self.settings.n_batch)

    def _load_where_it_fits(self) -> None:
        while True:
            if gone := devices.gone(self.placement.devices):
                self._plan_without(gone)
            try:
                self._load()
                return
            except GpuMemoryError as error:
                self._give_up(error)

    def _plan_without(self, gone: str) -> None:
        """Plan anew with the devices that are left. Raises EngineError where the options name the devices."""
        if self._config.devices is not None:
            raise EngineError(
                f"{gone} is gone, and the option device names it; once it is back, the model is loaded again; or "
                "name another: q3e-local doctor lists the GPUs that are here"
            )
        self.placement = placed(self.info, self._config, self._kernels)
        self.settings = self._settled()
        logger.warning("%s: %s is gone: %s", self.info.path.stem, gone, self.placement.explained)

    def _settled(self) -> Settings:
        """The settings for the place where the layers are to be."""
        tuned = kept.find(self.info.digest, platform(self.placement, self._kernels))
        host = self.placement.host(machine.physical_cores(), self._kernels.variant)
        return settle(self._config, host, tuned)

    def _give_up(self, why: GpuMemoryError) -> None:
        """Free what is there, and plan for fewer layers, with the settings for those."""
        before = self.placement
        self._unload()
        self.placement = fewer(before, self.info, self._batch_plan, devices.again(before.devices))
        self.settings = self._settled()
        logger.warning("%s: %s: %s", self.info.path.stem, self.placement.explained, why)

    def _load(self) -> None:
        info, placement = self.info, self.placement
        self._check_ram()
        try:
            self._weights = binding.Weights(
                os.fsencode(info.path), placement.n_gpu_layers, devices.pointers(placement.devices)
            )
        except binding.NativeError as error:
            if placement.on_gpu and error.is_memory:
                raise GpuMemoryError(
                    f"{size(placement.n_bytes)} are needed on the GPU, and were refused: {error}"
                ) from None
            raise ModelFileError(f"llama.cpp cannot load {info.path}: {error}") from None
        try:
            self.tap = self._config.tap and tap_is_proved(
                self._weights, info, self.settings.n_threads, placement.place, self._kernels.variant
            )
            self._contexts = Contexts(
                self._weights, info, self.settings, self.n_seq_max, self.tap, placement, self._between,
                kv_type=self._config.kv_type,
            )  # fmt: skip
        except BaseException:
            self._unload()
            raise
        n_batch = self.contexts.batch.plan.n_batch
        if n_batch < self.settings.n_batch:
            self.use(self.settings.changed("n_batch", n_batch, Reason("default", "for want of memory of a GPU")))
        else:
            self._count_bytes()

    def use(self, settings: Settings) -> None:
        """Go on with other threads or batches."""
        self.contexts.use(settings)
        self.settings = settings
        self._count_bytes()

    def _count_bytes(self) -> None:
        """What the machine and the devices hold now: the context for batches may be another than was planned."""
        batches = self.contexts.batch.plan
        if self.placement.on_gpu:
            self.placement = with_context(self.placement, self.info, batches)
        on_devices = 0 if self.placement.is_unified else self.placement.n_bytes
        self.n_bytes = ram_bytes(self.info, self.placement, batches) + on_devices

    def _check_ram(self) -> None:
        placement, info = self.placement, self.info
        in_ram = info.size_bytes
        if placement.on_gpu and not placement.is_unified:
            in_ram -= min(in_ram, sum(info.layer_bytes[-placement.n_on_gpu :]))
        total = machine.total_memory()
        if in_ram > total:
            raise NotEnoughMemoryError(
                f"{info.name} needs {size(in_ram)} for its weights, this machine has {size(total)}; "
                "take a smaller model or quantization"
            )


def _there(part: T | None) -> T:
    if part is None:
        raise EngineError("the engine is closed")
    return part
