"""What a model would take of this machine and its GPUs, asked before it is loaded: `Forecasts`.

Knows files, options and what GPUs have free; nothing of the models that are in memory.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from q3e_local.embedding.engine import EngineConfig
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import forecast
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.memory import as_asked
from q3e_local.llama.settings.placement import Device
from q3e_local.llama.settings.planning import freed, ram_bytes
from q3e_local.models.installed import Located
from q3e_local.server.workers.room import Needed, Take

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelForecast:
    """`Forecast` of a model with these options, by what `here` had free."""

    info: ModelInfo
    config: EngineConfig
    here: Sequence[Device]
    leaves_gpus: bool

    def needed(self, given_back: Iterable[Take]) -> Needed:
        """With its layers where they fit; for the model and its first batch. Raises OptionError for a device."""
        info, config = self.info, self.config
        placement = forecast.expected(info, config, freed(self.here, given_back))
        settings = kept.planned(info.digest, config, placement)
        n_bytes = ram_bytes(info, placement, as_asked(config, settings.n_batch))
        return Needed(n_bytes, placement.n_on_gpu, placement.is_short)


class Forecasts:
    """Asks for the GPUs each time, in a process of its own. Once they do not answer, they are left alone for good."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._leaves_gpus = False
        self._closed = False

    async def soon(self, located: Located) -> ModelForecast:
        """`of`, on a thread for which the end of the program does not wait: a driver may hang for long."""
        answer: Future[ModelForecast] = Future()
        answer.set_running_or_notify_cancel()  # nobody takes the question back

        def ask() -> None:
            try:
                answer.set_result(self.of(located))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=ask, name="q3e-forecast", daemon=True).start()
        return await asyncio.wrap_future(answer)

    def close(self) -> None:
        """Say nothing more: with the program ends the process that asks, and that is no fault of a driver."""
        self._closed = True

    def of(self, located: Located) -> ModelForecast:
        """Raises ModelError for a file that cannot run."""
        return ModelForecast(located.inspect(), self._config, self._here(), self._leaves_gpus)

    def _here(self) -> Sequence[Device]:
        if self._leaves_gpus or not forecast.may_use(self._config):
            return ()
        try:
            return forecast.ask()
        except forecast.NoAnswerError as error:
            self._leaves_gpus = True
            if not self._closed:
                logger.warning("the CPU computes until the server is started again: %s", error)
            return ()
