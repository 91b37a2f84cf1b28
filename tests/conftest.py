"""What all tests share: a clean environment, and tiny models written once a session."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before NumPy comes in: the oracle's matrices are small, and threads that wait for each other are slow.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Fixtures that outlive a test, and what they start, must not find the developer's home either.
os.environ["HOME"] = os.environ["USERPROFILE"] = tempfile.mkdtemp(prefix="q3e-tests-")

import processes
import pytest
import tiny
from hypothesis import settings
from oracle import Config, Weights
from tokenizers import Tokenizer
from world import World, world_of

from q3e_local.files import state_folder
from q3e_local.llama.kernels import in_use

# AMX rounds many tokens to bfloat16 and few to 8 bits, so that the third digit of a number depends on which texts are
# computed together. Tests of what is done with vectors compare more digits, and compute as a CPU without AMX does.
HAS_AMX = in_use.variants().get("amx", "not compiled in") is None
if HAS_AMX:
    os.environ["Q3E_KERNELS"] = "avx512"

# The same examples on every machine and in every run; nothing is written beside the code.
settings.register_profile("q3e", derandomize=True, database=None, deadline=None)
settings.load_profile("q3e")


# make integrations runs them, in an environment that has the clients.
collect_ignore = ["integrations"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    processes.mark(items)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In `make quick`, save the time to import what none of whose tests would run."""
    return True if config.option.markexpr == processes.QUICK and processes.is_left_out(collection_path) else None


@pytest.fixture(scope="session")
def _guard() -> processes.Guard:
    return processes.Guard()


@pytest.fixture(autouse=True)
def _starts_no_process(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[None]:
    """In `make quick`, a test that starts a process fails: tests/processes.py did not see that it would."""
    if pytestconfig.option.markexpr != processes.QUICK:
        yield
        return
    guard: processes.Guard = request.getfixturevalue("_guard")
    n_before = len(guard.started)
    yield
    assert not guard.started[n_before:], "it starts a process; tests/processes.py has to know"


@pytest.fixture(scope="session", autouse=True)
def _can_be_interrupted() -> None:
    """Whoever runs the tests may ignore these signals; what the tests start must not inherit that."""
    for name, default in {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}.items():
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
            signal.signal(getattr(signal, name), default)


@pytest.fixture(scope="session", autouse=True)
def _home_of_the_session() -> Iterator[None]:
    home = os.environ["HOME"]
    in_use.chosen()  # proved once for all tests: that takes a process of its own
    yield
    shutil.rmtree(home, ignore_errors=True)
    if "llama_cpp._utils" in sys.modules:  # the binding leaves them open, which warns when Python ends
        sys.modules["llama_cpp._utils"].outnull_file.close()
        sys.modules["llama_cpp._utils"].errnull_file.close()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the developer's reaches a test, no test reaches their home, their models or a network."""
    for name in os.environ:
        if name.startswith(("Q3E_", "HF_", "HUGGING", "XDG_")):
            monkeypatch.delenv(name)
    proved = state_folder() / "proved"
    home = tmp_path / "home"
    cache = home / "hub"
    for name, value in {"HOME": home, "USERPROFILE": home, "HF_HOME": home, "HF_HUB_CACHE": cache}.items():
        monkeypatch.setenv(name, str(value))
    if proved.is_dir():
        # Not below the test's own folder, of which some tests say that nothing was left there.
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path.with_name(f"{tmp_path.name}-state")))
        shutil.copytree(proved, state_folder() / "proved", dirs_exist_ok=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # huggingface_hub reads the variables once, when it is imported.
    if "huggingface_hub.constants" in sys.modules:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module", autouse=True)
def _kernels_of_this_process(request: pytest.FixtureRequest) -> None:
    if HAS_AMX:
        in_use.use("amx" if _is_of_amx(request) else "avx512")


@pytest.fixture(autouse=True)
def _kernels_of_others(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _clean_environment: None
) -> None:
    """Of the processes that a test starts."""
    if HAS_AMX and not _is_of_amx(request):
        monkeypatch.setenv("Q3E_KERNELS", "avx512")


def _is_of_amx(request: pytest.FixtureRequest) -> bool:
    """Tests of engines and rerankers compute with AMX where the CPU has it."""
    return request.path.relative_to(Path(__file__).parent).parts[0] in ("llama", "reranking")


@pytest.fixture(scope="session")
def config() -> Config:
    return Config()


@pytest.fixture(scope="session")
def weights(config: Config) -> Weights:
    return tiny.tiny_weights(config)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny.tiny_tokenizer()


@pytest.fixture(scope="session")
def eos_id(tokenizer: Tokenizer) -> int:
    return tokenizer.token_to_id(tiny.END)


@pytest.fixture(scope="session")
def tiny_gguf(
    tmp_path_factory: pytest.TempPathFactory, weights: Weights, config: Config, tokenizer: Tokenizer
) -> Callable[..., Path]:
    """`tiny_gguf("f16", context_length=512)`: the path of a tiny model file, written on first use. Read only."""
    folder, written = tmp_path_factory.mktemp("tiny"), {}

    def path(type: str = "f32", **variant: Any) -> Path:
        key = (type, *sorted(variant.items()))
        if key not in written:
            target = folder / f"{type}-{len(written)}.gguf"
            written[key] = tiny.write_gguf(target, weights, config, tokenizer, type, **variant)
        return written[key]

    return path


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_gguf: Callable[..., Path]) -> Iterator[World]:
    """A machine with a card for `tiny:1b`, whose files are on two hubs."""
    with world_of(monkeypatch, tmp_path, tiny_gguf) as world:
        yield world


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each variant of our kernels that this machine runs is a test of its own."""
    if "kernels" not in metafunc.module.__name__:
        return
    runs = [name for name, why in in_use.variants().items() if why is None]
    for fixture in ("variant", "name_of_variant"):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, runs, indirect=fixture == "variant")


@pytest.fixture
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """A variant of our kernels, in use during the test."""
    name: str = request.param
    in_use.use(name)
    yield name
    in_use.use(in_use.chosen().variant)
