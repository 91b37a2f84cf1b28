"""Too little memory on a GPU: what is tried instead, in which order, and how it is said. The CPU computes here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from engines import N_BATCH, N_CTX, hold, small
from gpus import device, pretend
from waiting import until

from q3e_local import machine
from q3e_local.cache.choose import open_cache
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import EngineError, GpuMemoryError, ModelFileError, NotEnoughMemoryError, OptionError
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import binding, devices
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.pooling_context import PoolingContext
from q3e_local.llama.settings.defaults import Host, defaults
from q3e_local.llama.settings.memory import for_batches, for_long, needed_bytes, padded
from q3e_local.llama.settings.planning import device_bytes

NO_WEIGHTS = "the model was refused: alloc_tensor_range: failed to allocate CUDA0 buffer of size 9"
REFUSED = "the context was refused: ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 1000"

Refuse = Callable[[Callable[..., bool]], list[dict[str, Any]]]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """`refuse(when)`: llama.cpp refuses contexts of such options. Returns the options of all that were asked for."""

    def install(when: Callable[..., bool]) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []
        make = binding.Context

        def made(model: binding.Weights, **options: Any) -> binding.Context:
            proves = options["n_ctx"] == 256 and options["n_batch"] < 16
            if not proves:
                asked.append({"on_gpu": model.on_gpu, **options})
                if when(model.on_gpu, **options):
                    raise binding.NativeError(REFUSED)
            return make(model, **options)

        monkeypatch.setattr(binding, "Context", made)
        return asked

    return install


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers, as llama.cpp counts them, with which weights were loaded."""
    loaded: list[int] = []
    load_weights = binding.Weights

    def recorded(path: bytes, n_gpu_layers: int = 0, *others: Any) -> binding.Weights:
        loaded.append(n_gpu_layers)
        return load_weights(path, n_gpu_layers, *others)

    monkeypatch.setattr(binding, "Weights", recorded)
    return loaded


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# What is planned


def test_a_model_that_fits_goes_to_the_gpu_whole_and_explain_says_where(f32, monkeypatch, loads, caplog):
    pretend(monkeypatch, device())
    with caplog.at_level(logging.INFO, "q3e_local.settings"), LlamaEngine(f32, small()) as engine:
        n = engine.info.n_layer
        assert (engine.on_gpu, engine.placement.n_on_gpu, loads) == (True, n, [n + 1])
    lines = [record.getMessage() for record in caplog.records if record.name == "q3e_local.settings"]
    assert f"{f32.stem}: {n} of {n} layers on NVIDIA GeForce RTX 3060, 0.01 of 12.0 GB" in lines
    assert warnings(caplog) == []


def test_a_model_that_fits_in_part_says_so_to_everybody(f32, monkeypatch, loads, caplog):
    info = inspect(f32)
    context = for_batches(32, 64, tap=True)
    n = info.n_layer - 1
    room = device_bytes(info, context, n, 1)
    pretend(monkeypatch, device(free=(room + (1 << 30)) / 1e9))
    with LlamaEngine(f32, small()):
        assert loads == [n + 1]
    (said,) = warnings(caplog)
    assert said.startswith(f"{f32.stem}: {n} of {n + 1} layers on NVIDIA GeForce RTX 3060, ")
    assert "GB are needed for all" in said


@pytest.mark.parametrize("options", [{"n_gpu_layers": 0}, {"device": "none"}])
def test_no_layers_or_no_device_mean_the_cpu_and_llama_cpp_gets_no_device(f32, monkeypatch, options):
    pretend(monkeypatch, device())
    monkeypatch.setattr(devices, "devices", lambda: pytest.fail("a driver was started"))
    given: list[Any] = []
    load_file = binding.lib.llama_model_load_from_file

    def loaded(path: bytes, params: Any) -> Any:
        import ctypes

        first = ctypes.cast(params.devices, ctypes.POINTER(ctypes.c_void_p))[0]
        given.append((params.n_gpu_layers, first))
        return load_file(path, params)

    monkeypatch.setattr(binding.lib, "llama_model_load_from_file", loaded)
    with LlamaEngine(f32, small(**options)) as engine:
        assert not engine.on_gpu
        assert engine.placement.explained.endswith("layers on the CPU (as asked)")
    assert given == [(0, None)]  # a list of devices that ends at once, and not NULL: that would mean all


def test_layers_without_a_gpu_and_devices_that_are_not_there_are_refused(f32, monkeypatch):
    pretend(monkeypatch)
    with pytest.raises(OptionError, match=r"^n_gpu_layers must be 0, got 3: llama\.cpp sees no GPU here"):
        LlamaEngine(f32, EngineConfig(n_gpu_layers=3))
    with pytest.raises(
        OptionError, match=r"^device must be one that llama\.cpp sees here, got 'CUDA1'; there is none"
    ):
        LlamaEngine(f32, EngineConfig(device="CUDA1"))
    pretend(monkeypatch, device())
    with pytest.raises(OptionError, match="got 'CUDA1'; there is CUDA0: NVIDIA GeForce RTX 3060"):
        LlamaEngine(f32, EngineConfig(device="CUDA0,CUDA1"))
    monkeypatch.setattr(binding, "can_offload", lambda: False)
    with pytest.raises(
        OptionError, match=r"^device must be none, got CUDA0: this llama\.cpp was built without a GPU"
    ):
        LlamaEngine(f32, EngineConfig(device="CUDA0"))


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(OptionError, match="n_gpu_layers must be 0 where device is none, got 2"):
        EngineConfig(device="none", n_gpu_layers=2)
    with pytest.raises(OptionError, match="device must be names with commas between them, or none, got 'A,,B'"):
        EngineConfig(device="A,,B")
    with pytest.raises(OptionError, match="kv_type must be one of f16, q8_0, got 'q4_0'"):
        EngineConfig(kv_type="q4_0")


def test_the_gpu_that_the_cpu_beat_is_left_alone_unless_it_is_asked_for(f32, monkeypatch, caplog):
    from q3e_local.llama.kernels import in_use
    from q3e_local.llama.loading import placed, platform
    from q3e_local.llama.settings import kept
    from q3e_local.llama.settings.defaults import Tuned

    pretend(monkeypatch, device("Vulkan0", kind="integrated"))
    info, kernels = inspect(f32), in_use.chosen()
    on_gpu = placed(info, EngineConfig(), kernels)
    kept.keep(info.digest, platform(on_gpu, kernels), Tuned(None, None, "2026-11-30", n_gpu_layers=0))
    assert placed(info, EngineConfig(), kernels).explained.endswith("(the CPU was faster when tuned on 2026-11-30)")
    assert placed(info, EngineConfig(device="Vulkan0"), kernels).on_gpu
    assert placed(info, EngineConfig(n_gpu_layers=1), kernels).n_on_gpu == 1
    pretend(monkeypatch, device("Vulkan0", kind="integrated", description="another"))
    assert placed(info, EngineConfig(), kernels).on_gpu


def test_what_a_driver_takes_of_the_margin_is_not_missing_for_the_batches_that_were_planned(f32, monkeypatch, caplog):
    info, margin = inspect(f32), 1 << 30
    context = for_batches(32, 64, tap=True)
    weights = sum(info.layer_bytes) + info.output_bytes
    needed = device_bytes(info, context, info.n_layer, 1)
    here = pretend(monkeypatch, device(free=(needed + margin) / 1e9))
    load_weights = binding.Weights

    def loaded(*arguments: Any) -> binding.Weights:
        here[:] = [device(free=(needed - weights + margin - 300_000_000) / 1e9)]
        return load_weights(*arguments)

    monkeypatch.setattr(binding, "Weights", loaded)
    with LlamaEngine(f32, small()) as engine:
        assert (engine.placement.all_on_gpu, engine.n_batch) == (True, 32)
    assert warnings(caplog) == []


@pytest.mark.parametrize(("given", "few", "many"), [(None, 4, 6), (3, 3, 3)])
def test_beside_a_gpu_few_threads_are_enough_unless_the_cpu_attends_or_has_layers(
    f32, sequences, expected, monkeypatch, refuse, given, few, many
):
    monkeypatch.setattr(machine, "physical_cores", lambda: 6)
    pretend(monkeypatch, device())
    asked = refuse(lambda on_gpu, **options: on_gpu and options["n_ctx"] > 256 and options["kv_on_gpu"])
    with LlamaEngine(f32, EngineConfig(n_threads=given, n_batch=N_BATCH)) as engine:
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX])
        of_batches, of_long = asked[0], asked[-1]
        assert (of_batches["kv_on_gpu"], of_batches["n_threads"]) == (True, few)
        assert (of_long["kv_on_gpu"], of_long["n_threads"]) == (False, many)
        assert (engine.placement.all_on_gpu, engine.n_threads) == (True, few)
        engine._owner.do(engine._loaded.fewer_layers, GpuMemoryError("made up"))
        assert (engine.placement.n_on_gpu, engine.n_threads) == (1, many)


def test_memory_that_is_told_counts_keys_and_values_as_they_are(f32, monkeypatch, refuse):
    """Those in q8_0 were counted as f16."""
    pretend(monkeypatch, device())
    n_bytes = {}
    for kind in ("f16", "q8_0"):
        with LlamaEngine(f32, small(kv_type=kind)) as engine:
            n_bytes[kind], info = engine.n_bytes, engine.info
    assert n_bytes["f16"] - n_bytes["q8_0"] == 256 * info.kv_bytes_per_token * 30 // 64
    refuse(lambda on_gpu, **options: options["kv_type"] == "f16")
    with LlamaEngine(f32, small()) as engine:
        assert engine.n_bytes == n_bytes["q8_0"]
    with LlamaEngine(f32, small(device="none", kv_type="q8_0")) as engine:
        assert engine.n_bytes == needed_bytes(info, for_batches(N_BATCH, 64, tap=True, kv_type="q8_0"))


# What is refused


def test_weights_that_are_refused_go_there_by_half_and_then_not_at_all(f32, sequences, expected, monkeypatch, caplog):
    pretend(monkeypatch, device())
    tried: list[int] = []
    load_weights = binding.Weights

    def refused(path: bytes, n_gpu_layers: int = 0, *others: Any) -> binding.Weights:
        tried.append(n_gpu_layers)
        if n_gpu_layers:
            raise binding.NativeError(NO_WEIGHTS)
        return load_weights(path, n_gpu_layers, *others)

    monkeypatch.setattr(binding, "Weights", refused)
    with LlamaEngine(f32, small()) as engine:
        n = engine.info.n_layer
        assert (n, tried) == (3, [4, 2, 0])
        assert not engine.on_gpu
        hold(engine.decode([sequences[9]]), expected[9])
    assert len(warnings(caplog)) == len(tried) - 1
    assert "1 of 3 layers on NVIDIA GeForce RTX 3060, " in warnings(caplog)[0]
    assert "all 3 layers on the CPU (for want of GPU memory): " in warnings(caplog)[1]
    assert "failed to allocate CUDA0 buffer" in warnings(caplog)[-1]


def test_weights_that_are_refused_for_another_reason_are_an_error_of_the_file(f32, monkeypatch):
    pretend(monkeypatch, device())

    def refused(*_: Any) -> None:
        raise binding.NativeError("the model was refused: missing tensor")

    monkeypatch.setattr(binding, "Weights", refused)
    with pytest.raises(ModelFileError, match="missing tensor"):
        LlamaEngine(f32, small())


def test_a_context_for_batches_gets_smaller_then_q8_0_then_ram_then_fewer_layers(
    tiny_gguf, monkeypatch, refuse, loads, caplog
):
    pretend(monkeypatch, device())
    path = tiny_gguf("f32")
    asked = refuse(lambda on_gpu, **_: on_gpu)
    with LlamaEngine(path, EngineConfig(n_threads=1)) as engine:
        usual = defaults(Host(1, kernels=engine.kernels.variant))
        assert (engine.on_gpu, engine.n_batch) == (False, usual.n_batch)  # as on any CPU
        n = engine.info.n_layer
    of_all = [(each["n_batch"], each["kv_type"], each["kv_on_gpu"]) for each in asked if each["on_gpu"]]
    ladder = [(1024, "f16", True), (512, "f16", True), (256, "f16", True), (128, "f16", True), (128, "q8_0", True)]
    ladder += [(128, "f16", False), (128, "q8_0", False)]
    counts = loads[:-1]
    assert of_all == ladder * len(counts)
    assert loads[0] == n + 1
    assert loads == sorted(loads, reverse=True)
    assert loads[-1] == 0
    assert len(warnings(caplog)) == len(counts)  # one for each step


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        (lambda **options: options["n_batch"] <= 256, None),
        (lambda **options: options["kv_type"] == "q8_0", "keys and values in q8_0"),
        (lambda **options: not options["kv_on_gpu"], "keys and values in the machine's memory"),
    ],
)
def test_the_first_context_that_holds_is_used_and_what_slows_down_is_said(
    f32, sequences, expected, monkeypatch, refuse, caplog, holds, said
):
    pretend(monkeypatch, device())
    refuse(lambda on_gpu, **options: not holds(**options))
    with LlamaEngine(f32, EngineConfig(n_threads=1)) as engine:
        assert engine.placement.all_on_gpu
        assert engine.n_batch <= 256
        assert engine.settings.explained("n_batch").endswith("(for want of memory of a GPU)")
        hold(engine.decode([sequences[9], sequences[2]]), [expected[9], expected[2]], 0.999)
    assert [said in line for line in warnings(caplog)] == ([] if said is None else [True])


def test_a_long_text_gets_q8_0_once_and_the_model_stays_on_the_gpu(
    f32, sequences, expected, monkeypatch, refuse, loads, caplog
):
    pretend(monkeypatch, device())
    refuse(lambda on_gpu, **options: options["n_ctx"] > 256 and options["kv_type"] == "f16")
    with LlamaEngine(f32, small()) as engine:
        for _ in range(2):
            hold(engine.decode([sequences[N_CTX]]), expected[N_CTX], 0.999)
        assert engine.placement.all_on_gpu
    assert len(loads) == 1
    (said,) = warnings(caplog)
    assert said == "a text of 512 tokens: keys and values in q8_0 (for want of memory of a GPU)"


def test_a_shorter_text_has_no_coarser_keys_because_a_longer_one_had(
    f32, sequences, expected, monkeypatch, refuse, caplog
):
    """It was computed in the context of the longer one, in q8_0, though there was memory for f16."""
    pretend(monkeypatch, device())
    asked = refuse(lambda on_gpu, **options: options["n_ctx"] > 256 and options["kv_type"] == "f16")
    with LlamaEngine(f32, small()) as engine:
        for n, made in ((N_CTX, (512, "q8_0")), (2 * N_BATCH, (256, "f16")), (2 * N_BATCH + 1, (256, "f16"))):
            hold(engine.decode([sequences[n]]), expected[n], 0.999)
            assert (asked[-1]["n_ctx"], asked[-1]["kv_type"]) == made
        n_asked = len(asked)
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX], 0.999)
        hold(engine.decode([sequences[N_CTX - 1]]), expected[N_CTX - 1], 0.999)  # of as many cells: it needs as much
        assert [each["kv_type"] for each in asked[n_asked:]].count("q8_0") == 1
    assert len(warnings(caplog)) == 1


def test_a_vector_by_q8_0_for_want_of_memory_is_not_kept_for_later(f32, monkeypatch, refuse, tmp_path):
    """It was kept as if it were f16, and served for ever after."""
    short, long = "a short text", "a text of more than a batch " * 32
    pretend(monkeypatch, device())
    is_full = True
    refuse(lambda on_gpu, **options: is_full and options["n_ctx"] > 256 and options["kv_type"] == "f16")
    cache = tmp_path / "vectors.sqlite"
    with LlamaEngine(f32, small()) as engine:
        assert 256 < len(engine.tokenize(long)) < N_CTX
        embedder = Embedder(engine, "tiny", cache=open_cache(cache))
        assert embedder.embed_documents([short, long]).cached == (False, False)
        assert embedder.embed_documents([short, long]).cached == (True, False)
        engine._owner.do(engine._loaded.fewer_layers, GpuMemoryError("made up"))
        assert engine.n_keepable == N_BATCH  # a long one may be on its way to the cache
    is_full = False
    with LlamaEngine(f32, small()) as engine:
        embedder = Embedder(engine, "tiny", cache=open_cache(cache))
        assert embedder.embed_documents([short, long]).cached == (True, False)
        assert embedder.embed_documents([short, long]).cached == (True, True)


@pytest.mark.parametrize("given", ["f16", "q8_0"])
def test_where_batches_are_computed_by_q8_0_no_vector_is_kept(f32, monkeypatch, refuse, given):
    pretend(monkeypatch, device())
    refuse(lambda on_gpu, **options: on_gpu and options["kv_type"] == "f16")
    with LlamaEngine(f32, small(kv_type=given)) as engine:
        assert (engine.placement.all_on_gpu, engine.n_keepable) == (True, 0)


def test_a_long_text_that_no_context_on_the_gpu_holds_is_computed_with_fewer_layers_there(
    f32, sequences, expected, monkeypatch, refuse, loads, caplog
):
    pretend(monkeypatch, device())
    refuse(lambda on_gpu, **options: on_gpu and options["n_ctx"] > 256)
    with LlamaEngine(f32, small()) as engine:
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX])
        assert not engine.on_gpu
        hold(engine.decode([sequences[9]]), expected[9])
        assert engine.tokenize("a text")
    assert loads[-1] == 0
    assert len(warnings(caplog)) == len(loads) - 1


def test_a_batch_that_is_refused_while_it_is_computed_is_computed_with_fewer_layers(
    f32, sequences, expected, monkeypatch, caplog
):
    pretend(monkeypatch, device())
    decode = binding.Context.decode
    with LlamaEngine(f32, small()) as engine:

        def refused(self: binding.Context, batch: Any) -> None:
            if engine._loaded.placement.on_gpu:
                raise binding.NativeError("llama_decode answered -2: failed to allocate compute buffers")
            decode(self, batch)

        monkeypatch.setattr(binding.Context, "decode", refused)
        monkeypatch.setattr("q3e_local.llama.loading.tap_is_proved", lambda *_: True)
        hold(engine.decode([sequences[9]]), expected[9])
        assert not engine.on_gpu
    assert "failed to allocate compute buffers" in warnings(caplog)[0]


def test_memory_that_another_program_took_is_seen_before_a_context_is_asked_for(
    f32, sequences, expected, monkeypatch, refuse, caplog
):
    here = pretend(monkeypatch, device())
    asked = refuse(lambda on_gpu, **options: False)
    with LlamaEngine(f32, small()) as engine:
        info = engine.info
        long = for_long(32, padded(N_CTX), tap=True, kv_type="q8_0")
        room = long.device_bytes(info, info.n_layer)
        here[:] = [device(free=(room + (1 << 30)) / 1e9)]
        asked.clear()
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX], 0.999)
    assert [each["kv_type"] for each in asked] == ["q8_0"]
    assert "keys and values in q8_0" in warnings(caplog)[0]


def test_fewer_layers_are_tried_where_the_machine_has_no_memory_for_all_keys_and_values(
    f32, sequences, expected, monkeypatch, refuse
):
    """The machine's memory ended it: half of the layers would have left half of the keys and values on the GPU."""
    pretend(monkeypatch, device())
    with LlamaEngine(f32, small()) as engine:
        info = engine.info
        refuse(
            lambda on_gpu, **options: options["n_ctx"] > 256 and options["kv_on_gpu"] and engine.placement.all_on_gpu
        )
        coarse = for_long(N_BATCH, padded(N_CTX), tap=True, kv_type="q8_0")
        room = coarse.host_bytes(info, 1)
        assert replace(coarse, kv_on_gpu=False).host_bytes(info, 3) > room
        monkeypatch.setattr(machine, "available_memory", lambda: room)
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX], 0.999)
        assert engine.placement.n_on_gpu == 1


def test_a_model_that_is_loaded_anew_gets_smaller_batches_before_coarser_ones(
    tiny_gguf, eos_id, truth, monkeypatch, refuse
):
    pretend(monkeypatch, device())
    decode = binding.Context.decode
    texts = [[*(place + n for n in range(99)), eos_id] for place in range(10)]
    with LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1)) as engine:
        assert engine.n_batch == 1024

        def refused(self: binding.Context, batch: Any) -> None:
            if engine.placement.all_on_gpu:
                raise binding.NativeError("llama_decode answered -2: failed to allocate compute buffers")
            decode(self, batch)

        monkeypatch.setattr(binding.Context, "decode", refused)
        monkeypatch.setattr("q3e_local.llama.loading.tap_is_proved", lambda *_: True)
        refuse(lambda on_gpu, **options: options["n_batch"] > 256)
        hold(engine.decode(texts), truth(texts), 0.9995)
        assert (engine.placement.n_on_gpu, engine.n_batch) == (1, 256)
        assert engine.n_keepable >= engine.n_ctx_max  # none by q8_0


def test_a_batch_that_waits_while_batches_get_smaller_is_computed_in_several(
    tiny_gguf, eos_id, truth, monkeypatch, refuse
):
    """It was an error, as too large for a batch: one beside a long text that a GPU had no memory for."""
    pretend(monkeypatch, device())
    texts = [[*(place + n for n in range(99)), eos_id] for place in range(10)]
    with LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1)) as engine, ThreadPoolExecutor(1) as other:
        refuse(lambda on_gpu, **options: options["n_batch"] > 256)
        waiting: list[Any] = []

        def loaded_anew() -> None:
            waiting.append(other.submit(engine.decode, texts))
            until(lambda: engine._owner.n_waiting > 0)
            engine._loaded.fewer_layers(GpuMemoryError("made up"))

        engine._owner.do(loaded_anew)
        hold(waiting[0].result(20), truth(texts), 0.9995)
        assert (engine.placement.n_on_gpu, engine.n_batch) == (1, 256)


def test_a_batch_after_which_a_lost_model_has_smaller_batches_is_computed_in_several(
    tiny_gguf, eos_id, truth, monkeypatch, refuse
):
    """It was an error, as too large for a batch."""
    pretend(monkeypatch, device())
    texts = [[*(place + n for n in range(99)), eos_id] for place in range(10)]
    with LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1)) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(machine, "available_memory", lambda: 10_000)
            with pytest.raises(NotEnoughMemoryError):
                engine._owner.do(engine._loaded.fewer_layers, GpuMemoryError("made up"))
        refuse(lambda on_gpu, **options: options["n_batch"] > 256)
        hold(engine.decode(texts), truth(texts), 0.9995)
        assert engine.n_batch == 256


def test_when_nothing_helps_the_error_has_the_figures_of_the_machine(f32, sequences, expected, monkeypatch, refuse):
    pretend(monkeypatch, device())
    refuse(lambda on_gpu, **options: on_gpu and options["n_ctx"] > 256)
    with LlamaEngine(f32, small()) as engine:
        monkeypatch.setattr(machine, "available_memory", lambda: 10_000)
        with pytest.raises(NotEnoughMemoryError, match=r"a text of 512 tokens needs \d+\.\d MB .* 0\.0 MB are free"):
            engine.decode([sequences[N_CTX]])
        assert engine.placement.all_on_gpu  # for the texts that fit
        hold(engine.decode([sequences[9]]), expected[9])


def test_a_proof_of_the_tap_that_is_refused_memory_takes_layers_away_and_not_the_tap(
    f32, sequences, expected, monkeypatch, loads, caplog
):
    pretend(monkeypatch, device())
    decode = PoolingContext.decode

    def refused(self: PoolingContext, *arguments: Any) -> Any:
        if loads[-1]:
            raise binding.NativeError("llama_decode answered -2: failed to allocate compute buffers")
        return decode(self, *arguments)

    monkeypatch.setattr(PoolingContext, "decode", refused)
    with LlamaEngine(f32, small()) as engine:
        assert (engine.on_gpu, engine.tap) == (False, True)
        hold(engine.decode([sequences[9]]), expected[9])
    assert loads == [4, 2, 0]
    assert all("to prove the hidden-state tap" in line for line in warnings(caplog))


def test_a_model_that_could_not_be_loaded_anew_is_loaded_when_there_is_memory_again(
    f32, sequences, expected, monkeypatch
):
    pretend(monkeypatch, device())
    decode = binding.Context.decode
    with LlamaEngine(f32, small()) as engine:

        def refused(self: binding.Context, batch: Any) -> None:
            if engine.on_gpu:
                raise binding.NativeError("llama_decode answered -2: failed to allocate compute buffers")
            decode(self, batch)

        monkeypatch.setattr(binding.Context, "decode", refused)
        monkeypatch.setattr("q3e_local.llama.loading.tap_is_proved", lambda *_: True)
        with monkeypatch.context() as patch:
            patch.setattr(machine, "available_memory", lambda: 10_000)
            for call in (lambda: engine.decode([sequences[9]]), lambda: engine.tokenize("a text")):
                with pytest.raises(NotEnoughMemoryError, match=r"0\.0 MB are free"):
                    call()
        assert engine.tokenize("a text")
        hold(engine.decode([sequences[9]]), expected[9])
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX])
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.tokenize("a text")


def test_a_batch_of_the_size_that_was_asked_for_is_computed_where_memory_was_enough_for_a_smaller_one(
    f32, sequences, expected, refuse, monkeypatch
):
    # As a process is asked that replaces one whose callers know the size.
    pretend(monkeypatch, device())
    refuse(lambda on_gpu, **options: on_gpu and options["n_batch"] > 256)
    lengths = [N_CTX, 9, 2 * N_BATCH, N_BATCH, 1, N_CTX - 1]
    with LlamaEngine(f32, EngineConfig(n_threads=1, n_batch=2048)) as engine:
        assert (engine.placement.all_on_gpu, engine.n_batch) == (True, 256)
        vectors = engine.decode([sequences[n] for n in lengths], [0, 0, 1, 1, 0, 0])
        hold(vectors, [expected[n] for n in lengths])
        assert engine.placement.all_on_gpu


def test_a_batch_that_is_refused_between_two_layers_of_a_long_text_is_computed_after_its_piece(
    f32, sequences, expected, monkeypatch
):
    info = inspect(f32)
    room = device_bytes(info, for_batches(N_BATCH, 64, tap=True), info.n_layer - 1, 1)
    pretend(monkeypatch, device(free=(room + (1 << 30)) / 1e9))
    decode, layer_done, refusals = PoolingContext.decode, PoolingContext._layer_done, []
    with LlamaEngine(f32, small()) as engine, ThreadPoolExecutor(1) as other:
        short: list[Any] = []

        def refused(self: PoolingContext, *arguments: Any) -> Any:
            if engine._owner.is_letting_in:
                refusals.append(engine.placement.n_on_gpu)
                raise binding.NativeError("llama_decode answered -2: failed to allocate compute buffers")
            return decode(self, *arguments)

        def with_another(self: PoolingContext) -> bool:
            if not short:
                short.append(other.submit(engine.decode, [sequences[9]]))
                until(lambda: engine._owner.n_waiting > 0)
            return layer_done(self)

        monkeypatch.setattr(PoolingContext, "decode", refused)
        monkeypatch.setattr(PoolingContext, "_layer_done", with_another)
        hold(engine.decode([sequences[N_CTX]]), expected[N_CTX])
        hold(short[0].result(20), expected[9])
    assert refusals == [info.n_layer - 1]


# Devices that are gone


def refuse_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next native decode is refused a GPU's memory."""
    decode, waiting = binding.Context.decode, ["refusal"]

    def refused(self: binding.Context, batch: Any) -> None:
        if waiting:
            waiting.clear()
            raise binding.NativeError("llama_decode answered -2: failed to allocate compute buffers")
        decode(self, batch)

    monkeypatch.setattr(binding.Context, "decode", refused)


@pytest.mark.parametrize(("left", "place"), [((), "CPU"), ((device("CUDA1", free=8),), "CUDA1")])
def test_a_model_whose_gpu_is_gone_when_it_is_loaded_anew_goes_where_there_is_one(
    f32, sequences, expected, monkeypatch, caplog, left, place
):
    """It ended in a KeyError, as an engine would whose external GPU was unplugged."""
    here = pretend(monkeypatch, device("CUDA0"), *left)
    with LlamaEngine(f32, small()) as engine:
        assert [each.name for each in engine.placement.devices] == ["CUDA0"]
        here[:] = left
        refuse_once(monkeypatch)
        hold(engine.decode([sequences[9]]), expected[9])
        assert ([each.name for each in engine.placement.devices] or ["CPU"]) == [place]
    assert "CUDA0 (NVIDIA GeForce RTX 3060) is gone: " in warnings(caplog)[-1]


def test_a_gpu_that_the_options_name_and_that_is_gone_is_an_error_until_it_is_back(
    f32, sequences, expected, monkeypatch
):
    here = pretend(monkeypatch, device("CUDA0"), device("CUDA1"))
    with LlamaEngine(f32, small(device="CUDA0")) as engine:
        here[:] = [device("CUDA1")]
        refuse_once(monkeypatch)
        for call in (lambda: engine.decode([sequences[9]]), lambda: engine.tokenize("a text")):
            with pytest.raises(
                EngineError, match=r"^CUDA0 \(NVIDIA GeForce RTX 3060\) is gone, and the option device names it; "
            ):
                call()
        here[:] = [device("CUDA0"), device("CUDA1")]
        hold(engine.decode([sequences[9]]), expected[9])
        assert engine.on_gpu


# Memory that is the machine's


def test_unified_memory_is_checked_as_the_machines(f32, sequences, monkeypatch, loads):
    pretend(monkeypatch, device("MTL0", backend="MTL", description="Apple M1"))
    with LlamaEngine(f32, small()) as engine:
        monkeypatch.setattr(machine, "available_memory", lambda: 10_000)
        with pytest.raises(NotEnoughMemoryError, match=r"512 tokens needs \d+\.\d MB .* 0\.0 MB are free") as refused:
            engine.decode([sequences[N_CTX]])
        assert not isinstance(refused.value, GpuMemoryError)  # fewer layers on the GPU would not help
        assert engine.placement.all_on_gpu
    monkeypatch.setattr(machine, "total_memory", lambda: 5_000_000)
    monkeypatch.setattr(binding, "Weights", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(NotEnoughMemoryError, match=r"needs \d+\.\d MB for its weights, this machine has 5\.0 MB"):
        LlamaEngine(f32, small())


def test_weights_on_a_card_need_not_fit_into_the_machine(f32, sequences, expected, monkeypatch):
    pretend(monkeypatch, device())
    monkeypatch.setattr(machine, "total_memory", lambda: 5_000_000)
    with LlamaEngine(f32, small()) as engine:
        hold(engine.decode([sequences[9]]), expected[9])


# Prefixes


@pytest.mark.parametrize(
    ("line", "is_on"),
    [
        (b"resolve_fused_ops: Flash Attention not supported, set to disabled\n", False),
        (b"resolve_fused_ops: Flash Attention enabled\n", True),
    ],
)
def test_whether_llama_cpp_left_flash_attention_off_is_read_from_its_words(f32, monkeypatch, line, is_on):
    make = binding.lib.llama_init_from_model

    def says(model: Any, params: Any) -> Any:
        binding.native_log(2, line, None)
        return make(model, params)

    monkeypatch.setattr(binding.lib, "llama_init_from_model", says)
    weights = binding.Weights(str(f32).encode())
    options = {"n_ctx": 256, "n_batch": 32, "n_seq_max": 1, "n_threads": 1, "pooling": binding.POOLING_NONE}
    for exact in (False, True):  # in f32 there is none in any case
        context = binding.Context(weights, exact=exact, **options)
        assert context.flash_attention == (is_on and not exact)
        context.free()
    weights.free()


@pytest.mark.parametrize(
    ("flash_attention", "n_prefix", "is_kept"), [(True, 20, False), (True, 300, True), (False, 300, False)]
)
def test_a_prefix_is_kept_on_a_gpu_only_where_that_is_quicker_than_to_compute_it(
    tiny_gguf, eos_id, truth, monkeypatch, flash_attention, n_prefix, is_kept
):
    pretend(monkeypatch, device())
    init, states = binding.Context.__init__, []

    def made(self: binding.Context, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        self.flash_attention = flash_attention

    state = binding.Context.state
    monkeypatch.setattr(binding.Context, "__init__", made)
    monkeypatch.setattr(binding.Context, "state", lambda self, seq_id: states.append(seq_id) or state(self, seq_id))
    head = [each % 900 for each in range(n_prefix)]
    texts = [[*head, 7, eos_id], [*head, 8, 9, eos_id]]
    with LlamaEngine(tiny_gguf("f32"), EngineConfig(n_threads=1)) as engine:
        for _ in range(2):
            hold(engine.decode(texts, [n_prefix] * 2), truth(texts), 0.9995)
        # The first of the two computes the prefix once; the second only where it was kept.
        assert engine.counts.n_reused == n_prefix * (3 if is_kept else 2)
    assert bool(states) == is_kept
