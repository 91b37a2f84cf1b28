"""Metrics for Prometheus, at `/metrics`: requests, durations, texts, tokens, and the counters of the service.

The registry is not prometheus_client's global one, so that the metrics of a second server in the process, or of a
host program, are not mixed in.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import Response

from q3e_local.server.http.logs import Seen
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.service import LoadedModel, RunningService

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

# By their names in the `counters()` of a service and of indexes.
_COUNTERS = {
    "n_batches": ("q3e_batches", "Batches computed."),
    "n_computed_tokens": ("q3e_computed_tokens", "Tokens computed."),
    "n_computed_texts": ("q3e_computed_texts", "Texts computed: those that were in flight already are not."),
    "n_cached_texts": ("q3e_cached_texts", "Texts that took a vector of the cache."),
    "n_shared_texts": ("q3e_shared_texts", "Texts that took the vector of an equal one in flight."),
    "n_failed_texts": ("q3e_failed_texts", "Texts the model had no vector for."),
    "n_refused": ("q3e_refused", "Requests refused because too much waited."),
    "decode_seconds": ("q3e_decode_seconds", "Time the models computed."),
    "n_worker_restarts": ("q3e_worker_restarts", "Model processes that ended and were started again."),
    "n_worker_deaths": ("q3e_worker_deaths", "Model processes that ended without having been asked to."),
    "n_loads": ("q3e_model_loads", "Models loaded."),
    "n_searches": ("q3e_searches", "Searches in an index."),
    "search_seconds": ("q3e_search_seconds", "Time spent searching, without embedding the queries."),
}
_GAUGES = {"n_queued": ("q3e_queue_length", "Requests that wait.")}


class Metrics:
    """The metrics of a server: of the requests that it observes, and those that its service and indexes count."""

    def __init__(self, service: RunningService, indexes: Indexes) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "q3e_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "q3e_request_seconds", "From the request's first byte to the answer's last.", ["route"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._texts = Counter("q3e_texts", "Texts embedded, and documents ranked.", registry=self._registry)
        self._tokens = Counter("q3e_tokens", "Tokens of those texts.", registry=self._registry)
        self._service, self._indexes = service, indexes
        self._registry.register(self)

    def observe(self, seen: Seen) -> None:
        method = seen.method if seen.method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        self._requests.labels(method, seen.route, str(seen.status)).inc()
        self._seconds.labels(seen.route).observe(seen.seconds)
        if seen.n_texts:
            self._texts.inc(seen.n_texts)
            self._tokens.inc(seen.n_tokens)

    async def answer(self, request: Request) -> Response:
        """Answer a request with all metrics in Prometheus' text format."""
        await self._service.look()
        return Response(generate_latest(self._registry), media_type=_CONTENT_TYPE)

    def collect(self) -> Iterator[Metric]:
        """Read the counters, at each scrape. A counter that is not there has no metric."""
        loaded = self._service.loaded()
        yield GaugeMetricFamily("q3e_loaded_models", "Models in memory.", value=len(loaded))
        size = GaugeMetricFamily("q3e_model_bytes", "Memory of a loaded model.", labels=["model"])
        for model in loaded:
            size.add_metric([model.name], model.size_bytes)
        yield size
        yield from _of_devices(loaded)
        counts = self._service.counters() | self._indexes.counters()
        for families, kind in ((_COUNTERS, CounterMetricFamily), (_GAUGES, GaugeMetricFamily)):
            for key, (name, text) in families.items():
                if key in counts:
                    yield kind(name, text, value=counts[key])


def _of_devices(loaded: list[LoadedModel]) -> Iterator[Metric]:
    """What models take of GPUs, and what these have. The processes of several models name a GPU alike."""
    which = ["device", "description"]
    taken = GaugeMetricFamily(
        "q3e_model_device_bytes", "Memory of a GPU that a model takes.", labels=["model", *which]
    )
    free = GaugeMetricFamily("q3e_device_free_bytes", "Memory that a GPU has free.", labels=which)
    total = GaugeMetricFamily("q3e_device_bytes", "Memory of a GPU.", labels=which)
    layers = GaugeMetricFamily("q3e_model_gpu_layers", "Layers of a model that are on GPUs.", labels=["model"])
    devices = {}
    for model in loaded:
        layers.add_metric([model.name], model.placement.n_on_gpu)
        for device, share in model.placement.takes:
            taken.add_metric([model.name, device.name, device.description], share)
            devices[device.name] = device
    for device in devices.values():
        free.add_metric([device.name, device.description], device.free_bytes)
        total.add_metric([device.name, device.description], device.total_bytes)
    yield from (layers, taken, free, total)
