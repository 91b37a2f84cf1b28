"""A model in memory: its weights where they were planned to be, and its contexts; or on fewer layers of a GPU.

Knows what to load, and what to load anew where memory is refused; leaves threads to engine.py, the plan to
settings/placement.py, and what a context can do without to contexts.py. Everything is called on the thread that
computes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from q3e_local import machine
from q3e_local.embedding.engine import NO_DEVICE, EngineConfig
from q3e_local.errors import EngineError, GpuMemoryError, ModelFileError, NotEnoughMemoryError, OptionError
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import binding, devices
from q3e_local.llama.contexts import Contexts, explaining
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.defaults import N_BATCH_ON_GPU, TUNABLE, Host, Reason, Settings, settle
from q3e_local.llama.settings.memory import for_batches
from q3e_local.llama.settings.placement import Placement, chosen, fewer, plan, unless_beaten, with_context
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
        for option in ("n_gpu_layers", "device"):
            if (value := getattr(config, option)) is not None:
                none = NO_DEVICE if option == "device" else 0
                raise OptionError(
                    f"{option} must be {none}, got {value}: this llama.cpp was built without a GPU; "
                    "docs/install.md says how to have one that was built for it",
                    option,
                )
        return Placement(info.n_layer, why="this llama.cpp was built without a GPU")
    some = chosen(devices.devices(), config.devices)
    if not some and config.n_gpu_layers is not None:
        raise OptionError(
            f"n_gpu_layers must be 0, got {config.n_gpu_layers}: llama.cpp sees no GPU here; "
            "q3e-local doctor says more",
            "n_gpu_layers",
        )
    context = for_batches(config.n_batch or N_BATCH_ON_GPU, config.n_seq_max, config.tap, config.kv_type)
    placement = plan(info, context, some, config.n_gpu_layers)
    return unless_beaten(placement, config, kept.find(info.digest, platform(placement, kernels)))


def platform(placement: Placement, kernels: Kernels) -> kept.Platform:
    """Where tuned settings count: this machine, build of llama.cpp, kernels and devices."""
    return kept.here(binding.version(), binding.features(), placement.place, kernels.name)


def load(info: ModelInfo, config: EngineConfig, kernels: Kernels, between: Callable[[], None]) -> LoadedModel:
    """Load a model where it is to be, with the settings for that place, and say how it runs to those who ask."""
    placement = placed(info, config, kernels)
    if placement.is_short:
        logger.warning("%s: %s", info.path.stem, placement.explained)
    loaded = LoadedModel(info, config, placement, kernels, between)
    lines = [kernels.explained, *(f"for more speed, {hint}" for hint in kernels.faster)]
    if binding.can_offload():
        lines.append(loaded.placement.explained)
        # As they were asked before the model came.
        lines.extend(f"{device}, and the model takes {size(share)} of it" for device, share in loaded.placement.takes)
    for line in [*lines, *map(loaded.settings.explained, TUNABLE)]:
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
    ) -> None:
        self.info, self.placement, self.tap = info, placement, config.tap
        self._config, self._kernels, self._between = config, kernels, between
        self.settings = self._settled()
        self._weights: binding.Weights | None = None
        self._contexts: Contexts | None = None
        self._is_closed = False
        self._load_where_it_fits(may_shrink=True)

    @property
    def weights(self) -> binding.Weights:
        """Raises EngineError once they are freed."""
        return _there(self._weights)

    @property
    def contexts(self) -> Contexts:
        """Raises EngineError once they are freed."""
        return _there(self._contexts)

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

        Raises NotEnoughMemoryError, and leaves all as it is, where the machine has no memory for the text either.
        What cannot be loaded anew is lost until `load_again`.
        """
        if n_tokens:
            self.contexts.check_on_cpu(n_tokens)
        self._give_up(why)
        self._load_where_it_fits(may_shrink=False)

    def load_again(self) -> None:
        """Load what is lost, where it was to be. Raises what loading raises, and may be called again then."""
        self._load_where_it_fits(may_shrink=False)

    def free(self) -> None:
        """Free everything for good; twice is fine."""
        self._is_closed = True
        self._unload()

    def _unload(self) -> None:
        if self._contexts is not None:
            self._contexts.free()
            self._contexts = None
        if self._weights is not None:
            self._weights.free()
            self._weights = None

    def _load_where_it_fits(self, *, may_shrink: bool) -> None:
        """`may_shrink`: nobody was told yet how many tokens a batch has."""
        while True:
            try:
                self._load(may_shrink=may_shrink)
                return
            except GpuMemoryError as error:
                self._give_up(error)
                if may_shrink:
                    self.settings = self._settled()

    def _settled(self) -> Settings:
        """The settings for the place where the layers are to be."""
        tuned = kept.find(self.info.digest, platform(self.placement, self._kernels))
        host = Host(machine.physical_cores(), self.placement.on_gpu, self._kernels.variant)
        return settle(self._config, host, tuned)

    def _give_up(self, why: GpuMemoryError) -> None:
        """Free what is there, and plan for fewer layers."""
        before = self.placement
        self._unload()
        context = for_batches(self.settings.n_batch, self._config.n_seq_max, self.tap, self._config.kv_type)
        self.placement = fewer(before, self.info, context, devices.again(before.devices))
        logger.warning("%s: %s: %s", self.info.path.stem, self.placement.explained, why)

    def _load(self, *, may_shrink: bool) -> None:
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
                self._weights, info, self.settings, self._config.n_seq_max, self.tap, placement, self._between,
                kv_type=self._config.kv_type, may_shrink=may_shrink,
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
        """What the devices hold now: the context for batches may be another than was planned."""
        if self.placement.on_gpu:
            self.placement = with_context(self.placement, self.info, self.contexts.batch.plan)

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
