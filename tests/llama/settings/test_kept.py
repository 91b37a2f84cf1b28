"""What was tuned is found again for the same file, machine and llama.cpp, and for no other."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gpus import device

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import OptionError
from q3e_local.files import state_folder
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import forecast
from q3e_local.llama.settings import kept as tuned
from q3e_local.llama.settings import memory
from q3e_local.llama.settings.defaults import Tuned
from q3e_local.llama.settings.placement import Placement
from q3e_local.models.installed import Located, locate
from q3e_local.server.local.forecasts import Forecasts
from q3e_local.server.workers.room import Needed

DIGEST = "ab" * 32
FEATURES = frozenset({"AVX2", "FMA"})
BEST = Tuned(n_threads=3, n_batch=768, day="2026-11-20")


def keep(best: Tuned = BEST, **platform: object) -> Path:
    return tuned.keep(DIGEST, replace(tuned.here("0.3.36", FEATURES, "CPU", "avx2"), **platform), best)[0]


def find(
    digest: str = DIGEST,
    binding: str = "0.3.36",
    features: frozenset[str] | None = FEATURES,
    place: str = "CPU",
    kernels: str | None = "avx2",
) -> Tuned | None:
    return tuned.find(digest, tuned.here(binding, features, place, kernels))


def test_tuned_settings_are_found_here_and_nowhere_else(monkeypatch):
    assert find() is None
    path = keep()
    assert path.parent == state_folder() / "tuned"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert find() == BEST
    assert find(digest="cd" * 32) is None
    assert find(binding="0.3.37") is None
    assert find(features=FEATURES | {"AVX512"}) is None
    assert find(place="NVIDIA GeForce RTX 3060 (CUDA), all layers") is None
    assert (find(kernels="off"), find(kernels="amx")) == (None, None)
    assert find(features=None, kernels=None) == BEST  # before llama.cpp is loaded
    for what, other in {"cpu_name": "another CPU", "physical_cores": 77, "logical_cpus": 99}.items():
        with monkeypatch.context() as patched:
            patched.setattr(machine, what, lambda other=other: other)
            assert find() is None, what


def test_a_tuning_replaces_an_earlier_tuning_of_the_same_machine_alone():
    keep()
    keep(replace(BEST, n_threads=5))
    keep(replace(BEST, n_threads=9, day="2027-01-01"), cpu="another CPU")
    assert find() == replace(BEST, n_threads=5)
    assert tuned.forget(DIGEST) == 2
    assert (find(), tuned.forget(DIGEST)) == (None, 0)


def test_a_setting_that_a_later_tuning_did_not_measure_stays():
    keep()
    keep(replace(BEST, n_threads=9), cpu="another CPU")
    none = Tuned(None, None, "2026-12-01")
    keep(replace(none, n_batch=1024))
    assert find() == replace(BEST, n_batch=1024, day="2026-12-01")
    keep(replace(none, n_threads=5))
    assert find() == Tuned(5, 1024, "2026-12-01")


def test_a_server_plans_with_tuned_settings_before_llama_cpp_is_loaded():
    on_cpu, on_gpu = Placement(28), Placement(28, 28, (device(),))
    assert tuned.planned(DIGEST, EngineConfig(), on_cpu).n_batch == 512
    assert tuned.planned(DIGEST, EngineConfig(), on_gpu).n_batch == 1024
    keep()
    settings = tuned.planned(DIGEST, EngineConfig(n_threads=1), on_cpu)
    assert (settings.n_threads, settings.n_batch) == (1, 768)
    assert tuned.planned(DIGEST, EngineConfig(), on_gpu).n_batch == 1024
    keep(place=on_gpu.place)
    assert tuned.planned(DIGEST, EngineConfig(), on_gpu).n_batch == 768


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"place": {}, "tuned": {}}',
        b'{"layout": 2, "place": {}, "tuned": {}}',
        b'{"layout": 3, "place": {}, "tuned": {}}',
        b'{"layout": "1"}',
        b'{"layout": true}',
        b'{"place": 3, "tuned": 4}',
        b'{"layout": 2, "place": {"binding": "1"}, "tuned": []}',
        *(json.dumps({"tuned": {name: value}}).encode() for name, value in {
            "n_threads": 0, "n_batch": "512", "day": "soon", "n_gpu_layers": -1,
        }.items()),
    ],
)  # fmt: skip
def test_a_damaged_file_is_set_aside_with_a_warning(content, caplog):
    path = keep()
    if content.startswith(b'{"tuned": {"'):  # a single wrong value in a file that is sound otherwise
        whole = json.loads(path.read_text())
        content = json.dumps(whole | {"tuned": whole["tuned"] | json.loads(content)["tuned"]}).encode()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert find() is None
    assert "is damaged" in caplog.text
    assert "tune again" in caplog.text
    assert not path.exists()
    assert path.with_suffix(".damaged").read_bytes() == content
    caplog.clear()
    assert find() is None
    assert caplog.text == ""


@pytest.mark.parametrize(
    "gone",
    [
        {"repack": True, "flash_attention": False},
        {"flash_attention": None, "long_flash_attention": False, "long_kv_type": "bf16", "long_batch": 1024},
        {"repack": None, "flash_attention": True, "long_kv_type": "q8_0"},
    ],
)
def test_a_file_of_version_0_1_0_counts_where_llama_cpp_computes_alone(gone, caplog):
    """That version had no kernels of ours, and settings that do not exist any more."""
    path = keep()
    kept = json.loads(path.read_text())
    del kept["place"]["kernels"], kept["place"]["place"], kept["tuned"]["n_gpu_layers"]
    kept["place"]["on_gpu"] = False
    path.write_text(json.dumps(kept | {"layout": 2, "tuned": kept["tuned"] | gone}))
    content = path.read_bytes()
    assert find(kernels="off") == BEST
    assert find() is None
    assert caplog.text == ""
    assert path.read_bytes() == content


@pytest.mark.parametrize(("on_gpu", "expected"), [(False, BEST), (True, None)])
def test_a_file_that_does_not_name_the_gpu_counts_for_the_cpu_alone(on_gpu, expected, caplog):
    path = keep()
    kept = json.loads(path.read_text())
    del kept["place"]["place"], kept["tuned"]["n_gpu_layers"]
    kept["place"]["on_gpu"] = on_gpu
    path.write_text(json.dumps(kept | {"layout": 3}))
    assert find() == expected
    assert find(place=Placement(28, 28, (device(),)).place) is None
    assert (caplog.text, path.exists()) == ("", True)


def test_a_file_of_another_layout_is_left_alone(monkeypatch, caplog):
    with monkeypatch.context() as newer:
        newer.setattr(tuned, "_LAYOUT", 5)  # as a later version has it
        path = keep()
    content = json.dumps({"layout": 5, "places": ["of", "another", "kind"]})
    path.write_text(content)
    assert find() is None
    assert caplog.text == ""
    older = keep()
    assert find() == BEST
    assert (path.read_text(), older != path) == (content, True)
    assert tuned.forget(DIGEST) == 2


def test_a_file_that_cannot_be_read_is_told_and_left_alone(caplog):
    path = keep()
    path.unlink()
    path.mkdir()
    assert find() is None
    assert "cannot read" in caplog.text
    assert path.exists()


def needed(located: Located, config: EngineConfig) -> Needed:
    """What a server plans for this model."""
    return Forecasts(config).of(located).needed(())


def test_memory_is_planned_for_the_tuned_settings(tiny_gguf):
    path = tiny_gguf("f16")
    located = locate(path)
    info, before = inspect(path), needed(located, EngineConfig()).ram_bytes
    platform = tuned.here("0.3.36", FEATURES, "CPU")
    tuned.keep(info.digest, platform, Tuned(1, 1024, day="2026-11-20"))
    of_1024 = needed(located, EngineConfig(n_batch=1024)).ram_bytes
    assert needed(located, EngineConfig()).ram_bytes == of_1024 > before
    assert needed(located, EngineConfig(n_batch=512)).ram_bytes == before


def test_a_server_plans_for_the_gpus_that_llama_cpp_sees(tiny_gguf, monkeypatch):
    located = locate(tiny_gguf("f32"))
    info, on_cpu = inspect(located.path), needed(located, EngineConfig())
    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    monkeypatch.setattr(forecast, "ask", lambda: [device()])
    whole = needed(located, EngineConfig())
    # What stays in the machine is the token table and a row of logits for each of 64 texts, beside kept prefixes.
    assert whole.ram_bytes == info.size_bytes - sum(info.layer_bytes) + 64 * info.n_vocab * 4 + memory.KEPT_BYTES_MAX
    assert not whole.is_short
    for options in ({"n_gpu_layers": 0}, {"device": "none"}):
        assert needed(located, EngineConfig(**options)) == on_cpu
    monkeypatch.setattr(forecast, "ask", lambda: [device(free=0.5, total=4)])
    assert needed(located, EngineConfig()).is_short
    monkeypatch.setattr(forecast, "ask", lambda: [device(kind="integrated")])
    in_1024 = needed(located, EngineConfig(n_batch=1024, n_gpu_layers=0)).ram_bytes
    assert needed(located, EngineConfig()).ram_bytes == in_1024  # all of it, with the batches of a GPU
    with pytest.raises(OptionError, match="got 'CUDA9'"):
        needed(located, EngineConfig(device="CUDA9"))


@pytest.mark.parametrize("here", [[], [device(free=0.5, total=4)], [device(kind="integrated")]])
def test_a_server_plans_for_keys_and_values_as_they_are_asked_for(tiny_gguf, monkeypatch, here):
    """Those in q8_0 were planned as f16."""
    located = locate(tiny_gguf("f32"))
    info, n_cells = inspect(located.path), 1024
    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    monkeypatch.setattr(forecast, "ask", lambda: here)
    f16, q8_0 = (needed(located, EngineConfig(n_batch=n_cells, kv_type=kind)).ram_bytes for kind in ("f16", "q8_0"))
    # 34 bytes for 32 numbers in place of 64.
    assert f16 - q8_0 == n_cells * info.kv_bytes_per_token * 30 // 64


def test_a_server_that_gets_no_answer_from_gpus_leaves_them_alone_from_then_on(tiny_gguf, monkeypatch, caplog):
    located = locate(tiny_gguf("f32"))
    n_asked = 0

    def ask() -> list[object]:
        nonlocal n_asked
        n_asked += 1
        raise forecast.NoAnswerError("a driver hangs")

    forecasts = Forecasts(EngineConfig())
    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    monkeypatch.setattr(forecast, "ask", lambda: [device()])
    assert (forecasts.of(located).leaves_gpus, forecasts.of(located).needed(()).n_on_gpu) == (False, 3)
    monkeypatch.setattr(forecast, "ask", ask)
    for _ in range(2):
        found = forecasts.of(located)
        assert (found.leaves_gpus, found.needed(()).n_on_gpu, n_asked) == (True, 0, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "the CPU computes until the server is started again: a driver hangs"
    ]


def test_a_server_ends_while_gpus_do_not_answer(tiny_gguf, monkeypatch, caplog):
    """It had stopped, and its process was there until the answer was given up: for a minute."""
    located, answered = locate(tiny_gguf("f32")), threading.Event()

    def ask() -> list[object]:
        answered.wait(20)
        raise forecast.NoAnswerError("its process was ended")

    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    monkeypatch.setattr(forecast, "ask", ask)
    forecasts = Forecasts(EngineConfig())

    async def serve() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await forecasts.soon(located)
        forecasts.close()

    began = time.monotonic()
    asyncio.run(serve())
    assert time.monotonic() - began < 10
    (asking,) = (thread for thread in threading.enumerate() if thread.name == "q3e-forecast")
    assert asking.daemon  # which Python does not wait for
    answered.set()
    asking.join(20)
    assert caplog.records == []  # it is no fault of a driver


def test_what_is_given_back_to_a_gpu_is_reckoned_without_asking_it(tiny_gguf, monkeypatch):
    located = locate(tiny_gguf("f32"))
    small = device(free=0.5, total=4)
    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    monkeypatch.setattr(forecast, "ask", lambda: [small])
    found = Forecasts(EngineConfig()).of(located)
    monkeypatch.setattr(forecast, "ask", lambda: pytest.fail("asked again"))
    assert found.needed(()).is_short
    assert (found.needed([(small, 1_000_000_000)]).n_on_gpu, found.needed([(device("CUDA1"), 10**9)]).is_short) == (
        3,
        True,
    )


def test_memory_is_planned_for_a_long_text_in_pieces_of_a_batch(tiny_gguf):
    path = tiny_gguf("f16")

    def long_bytes(n_batch: int) -> int:
        info, batches = inspect(path), memory.for_batches(n_batch, 1, tap=True)
        return memory.needed_bytes(info, batches, 4096) - memory.needed_bytes(info, batches)

    # A mask in f16 at least: 2 bytes for each token of a piece with each token of the text.
    assert long_bytes(1024) - long_bytes(512) > 2 * 512 * 4096
