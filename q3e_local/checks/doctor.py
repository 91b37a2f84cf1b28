"""What this machine offers, what is wrong with it, and what to do about each problem.

Looks at the machine, llama.cpp, folders and models. Changes nothing and prints nothing. llama.cpp is loaded and
computes in a child process: a build that does not fit this CPU ends that process, which is a finding.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from q3e_local.checks.finding import Finding
from q3e_local.errors import CrashError, Q3EError
from q3e_local.llama.child import Child
from q3e_local.llama.forecast import ANSWER_S
from q3e_local.llama.kernels import choice
from q3e_local.wording.endings import advice, manner
from q3e_local.wording.installing import rebuild

_SPARE_BYTES = 500_000_000  # to stay free beside a model: a full disk breaks other programs

# What to do about a model whose file is broken, by its origin.
_REMOVE = "remove it and pull it again: q3e-local rm {model.name}"
_ADVICE = {
    "pulled": _REMOVE,
    "made": _REMOVE,
    "imported": "mend {model.path}, or forget it: q3e-local rm {model.name}",
    "found": "delete {model.path}, which another program put there, and pull it: q3e-local pull {model.name}",
    "bundled": "reinstall q3e-local",
}


class NativeLooks:
    """The looks that run native code, to be made in a child process."""

    def llama(self) -> list[Finding]:
        """Which llama.cpp there is, and what it uses of this machine."""
        return list(_checked("llama.cpp", _llama))

    def kernels(self) -> list[Finding]:
        """Which kernels compute on the CPU, and what of it llama.cpp's build leaves unused."""
        return list(_checked("kernels", _kernels))

    def without_kernels(self) -> None:
        """Go on without our kernels. To be called before any of them computes."""
        os.environ[choice.VARIABLE] = choice.OFF

    def demo(self) -> list[Finding]:
        """Whether the demo models give vectors, and order documents."""
        found = list(_checked("embedding", _demo))
        if all(finding.ok for finding in found):
            found += _checked("ranking", _demo_reranker)
        return found


def examine() -> Iterator[Finding]:
    """Yield all findings, one after the other; a look that fails is a finding too."""
    with Child(NativeLooks) as child:
        yield from _checked("machine", _machine)
        loaded = list(_checked("llama.cpp", lambda: _llama_apart(child)))
        yield from loaded
        if all(finding.ok for finding in loaded):
            yield from _kernels_apart(child)
        yield from _checked("folders", _folders)
        yield from _checked("models", _models)
        yield from _checked("names", _names)
        if child.is_alive:
            yield from _checked("embedding", lambda: child.ask("demo"))
        else:
            yield Finding("embedding", "not tried, as llama.cpp cannot be loaded", False, "mend llama.cpp first")


def _llama_apart(child: Child) -> Iterator[Finding]:
    """Look at llama.cpp in the child, where a GPU's driver is started too."""
    try:
        yield from child.ask("llama", timeout_s=ANSWER_S)
    except TimeoutError as silence:
        advice = (
            "a GPU's driver may hang: mend it, or restart the machine; until then, --device none leaves GPUs alone"
        )
        yield Finding("llama.cpp", str(silence), False, advice)


def _kernels_apart(child: Child) -> Iterator[Finding]:
    """Look at our kernels in another process, which they may end; `child` goes on without them then."""
    try:
        with Child(NativeLooks) as other:
            yield from other.ask("kernels")
    except CrashError as crash:
        child.ask("without_kernels")
        text = f"they end the process here, by {manner(crash.exit_code)}"
        yield Finding("kernels", text, False, f"do without them: {choice.VARIABLE}={choice.OFF}")


def _checked(what: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a look, and its failure as a finding."""
    try:
        yield from look()
    except CrashError as crash:
        said = f"; its last words: {crash.last_words}" if crash.last_words else ""
        text = f"llama.cpp ends the process here, by {manner(crash.exit_code)}{said}"
        yield Finding(what, text, False, advice(crash.exit_code))
    except (Q3EError, OSError, ImportError, RuntimeError) as error:
        yield Finding(what, str(error), False, "mend this first; the rest may depend on it")


def _machine() -> Iterator[Finding]:
    from q3e_local import machine

    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield Finding("system", f"{system}, Python {platform.python_version()}")
    n_cores = machine.physical_cores()
    yield Finding("cores", f"{n_cores} physical cores for this process, {os.cpu_count()} CPUs in the machine")
    yield _memory(machine.total_memory(), machine.available_memory())


def _memory(total: int, available: int) -> Finding:
    """Whether the model that `_models` advises to pull can run, and can run now."""
    from q3e_local.models import fitting

    text = f"{total / 1e9:.1f} GB, {available / 1e9:.1f} GB available"
    advised, smallest = fitting.recommended(), fitting.smallest()
    if advised is None:
        advice = f"only the demo model can run here: {smallest.name} needs {smallest.memory}"
        return Finding("memory", text, False, advice)
    if available < advised.n_bytes:
        advice = f"close other programs before you use {advised.name}, which needs {advised.memory}"
        return Finding("memory", text, available >= smallest.n_bytes, advice)
    return Finding("memory", f"{text}: enough for {advised.name}, which needs {advised.memory}")


def _llama() -> Iterator[Finding]:
    from importlib.metadata import version

    from q3e_local.checks.gpus import gpus
    from q3e_local.llama import library

    with library.importing():
        from q3e_local.llama import binding

    yield Finding("llama.cpp", f"llama-cpp-python {version('llama-cpp-python')}: {binding.system_info()}")
    yield from gpus()


def _kernels() -> Iterator[Finding]:
    from q3e_local.llama import binding
    from q3e_local.llama.kernels import in_use

    chosen, runs, features = in_use.chosen(), in_use.variants(), binding.features()
    lacks = in_use.lacking(runs, features, chosen.variant)
    faster = "; ".join(hint for hint in chosen.faster if lacks is None or hint != lacks.text)
    yield Finding("kernels", f"{chosen.name} ({chosen.why})", not chosen.is_wrong, faster)
    finding = None
    if lacks is not None:
        finding = Finding("CPU", lacks.what, False, lacks.advice)
    elif not runs and platform.machine().lower() in ("x86_64", "amd64") and "AVX2" not in features:
        text, advice = "llama.cpp was built without AVX2", "build it on this machine, if the CPU has it"
        finding = Finding("CPU", text, False, advice)
    if finding is not None and _computes_on_gpu_alone(chosen):
        # As wheels are that others built for a card. The CPU looks up the rows of tokens, and no more.
        text = f"{finding.text}; no matter here, where a GPU has all layers of every model"
        finding = Finding("CPU", text)
    if finding is not None:
        yield finding


def _computes_on_gpu_alone(kernels: choice.Kernels) -> bool:
    """Whether no layer of any model that is here would be left to the CPU now."""
    from q3e_local.embedding.engine import EngineConfig
    from q3e_local.llama.loading import placed
    from q3e_local.models import installed

    infos = []
    for model in installed.installed():
        with suppress(Q3EError):  # a finding of its own
            infos.append(model.inspect())
    return bool(infos) and all(placed(info, EngineConfig(), kernels).all_on_gpu for info in infos)


def _folders() -> Iterator[Finding]:
    from q3e_local import files
    from q3e_local.models import fitting
    from q3e_local.models.download.origins import hub_cache

    places = {
        "data": files.data_folder(),
        "config": files.config_folder(),
        "state": files.state_folder(),
        "hub cache": hub_cache(),
    }
    advised = fitting.recommended() or fitting.smallest()
    for name, folder in places.items():
        variable = "HF_HOME" if name == "hub cache" else "Q3E_HOME"
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        if not (there.is_dir() and os.access(there, os.W_OK)):
            yield Finding(name, f"{folder} cannot be written", False, f"make it yours, or choose another: {variable}")
        elif name in ("data", "hub cache") and free < advised.disk_bytes + _SPARE_BYTES:
            needs = f"{advised.name} needs {advised.disk_bytes / 1e9:.1f} GB"
            advice = f"{needs}: make room, or choose another folder with {variable}"
            yield Finding(name, f"{folder}, {free / 1e9:.1f} GB free", False, advice)
        else:
            yield Finding(name, f"{folder}, {free / 1e9:.0f} GB free")


def _models() -> Iterator[Finding]:
    from q3e_local.gguf.model_kind import head_in_words
    from q3e_local.models import fitting, installed

    models = installed.installed()
    for model in models:
        try:
            info = model.inspect()
        except Q3EError as error:
            yield Finding("model", f"{model.name}: {error}", False, _ADVICE[model.origin].format(model=model))
        else:
            what = f"dim {info.n_embd}" if info.answers is None else f"reranker, head {head_in_words(info.answers)}"
            yield Finding("model", f"{model.name}: {info.quantization}, {what}, header right")
    for model in installed.gone():
        yield Finding("model", f"{model.name} is gone", False, installed.what_is_gone(model))
    if all(model.origin == "bundled" for model in models):
        advised = fitting.recommended()
        advice = "" if advised is None else f"q3e-local pull {advised.name}"
        yield Finding("model", "only what comes with q3e-local is here", True, advice)


def _names() -> Iterator[Finding]:
    from q3e_local.models.names import Names
    from q3e_local.models.own_names import config_file, read_aliases

    aliases = read_aliases()
    for doubt in Names(aliases).check_aliases():
        yield Finding("names", doubt)
    if aliases:
        yield Finding("names", f"{', '.join(aliases)}: of your own, in {config_file()}")


def _demo() -> Iterator[Finding]:
    import numpy as np

    import q3e_local
    from q3e_local.models import installed

    with q3e_local.load(installed.locate("demo").path) as embedder:  # a path works whatever is wrong with names
        result = embedder.embed_documents(["a short text", "另一段文字"])
        norms = np.linalg.norm(result.vectors, axis=1)
        works = result.vectors.shape == (2, embedder.n_embd) and bool(np.allclose(norms, 1, atol=1e-5))
        tap = getattr(embedder.engine, "tap", True)
    if not works:
        yield Finding("embedding", f"the demo model gives vectors of norm {norms}", False, "reinstall q3e-local")
    elif not tap:
        yield Finding(
            "embedding", "works, on the slow path", False, f"compile llama.cpp on this machine: {rebuild()}"
        )
    else:
        yield Finding("embedding", f"works: 2 texts, dim {embedder.n_embd}, vectors of length 1")


def _demo_reranker() -> Iterator[Finding]:
    from q3e_local.embedding.engine import EngineConfig
    from q3e_local.llama.engine import LlamaEngine
    from q3e_local.models import installed
    from q3e_local.reranking.reranker import Reranker

    documents = ["The office moves in April.", "The budget was exceeded by six percent."]
    located = installed.locate("demo-reranker")
    # Not by `load_reranker`, which notes of a path that its order was proved: nothing is written here.
    engine = LlamaEngine(located.path, EngineConfig(), kind="reranker")
    with Reranker(engine, located.name, located.rerank_prompts) as reranker:
        best = reranker.rank("we spent more money than planned", documents)[0]
    if best.index != 1:
        yield Finding(
            "ranking", "the demo reranker takes a wrong answer for the right one", False, "reinstall q3e-local"
        )
    else:
        yield Finding("ranking", "works: of 2 documents the right one is first")
