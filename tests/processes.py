"""What `make quick` leaves out: tests that start processes, and files whose tests take long.

A test starts a process where a module or a class that starts processes is named by its code, by a fixture that it
uses, or by a helper in tests/ that one of both calls. Commands of the program that start processes cannot be seen in
the code of a test: the files with such tests are listed here. In `make quick`, a test that starts a process and lacks
the marker fails. Files and tests with 2 s of CPU time or more are listed as slow.
"""

from __future__ import annotations

import inspect
import multiprocessing.process
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from paths import TESTS

QUICK = "not process and not slow"  # what `make quick` says to pytest

# Names that start processes, whatever module they are taken from.
STARTERS = {
    "subprocess", "multiprocessing", "Popen", "SPAWN", "Child", "ModelInChild", "WorkerEngine", "WorkerProcess",
    "SteadyEngine", "LocalService", "quantize",
}  # fmt: skip
# Small programs that libraries ask about the machine, once: they cost nothing.
_HARMLESS = ("lscpu", "uname", "fc-list")

# Files, and single tests, that call commands or scripts that start processes.
FILES = {
    "checks/test_doctor_native.py",
    "checks/test_tune_command.py",
    "cli/test_help.py::test_what_it_says_to_start_with_works_on_a_machine_with_nothing",
    "cli/test_on_server.py",
    "cli/test_serve.py",
    "convert/test_quantize.py",
    "convert/test_rerankers.py",
    "llama/kernels/test_build.py",
    "models/test_names.py::test_what_measures_a_model_knows_it_by_all_its_names",
    "reading/test_office.py",
    "scripts/test_bench_gpu.py",
    "scripts/test_bench_kernels.py",
    "scripts/test_build_gpu.py",
    "scripts/test_bench_lengths.py",
    "scripts/test_compare.py",
    "scripts/test_compare_peers.py",
    "scripts/test_dist.py",
    "scripts/test_install.py",
    "scripts/test_make_model.py::test_it_prints_the_lines_of_the_card",
    "scripts/test_quantization.py",
    "scripts/test_server_overhead.py",
    "scripts/test_session.py",
    "server/assistants/test_stdio.py",
    "server/local/test_service.py",
    "test_readme.py",
    "test_tour.py",
}

# Files, and single tests, that take 2 s of CPU time or more without any process.
SLOW = {
    "cache/test_damage.py",
    "cache/test_embedder.py",
    "cache/test_file.py",
    "cache/test_kept.py",
    "cache/test_redis.py",
    "cache/test_unusable.py",
    "checks/test_bench.py",
    "cli/test_bench.py",
    "cli/test_blank_texts.py",
    "cli/test_cache.py",
    "cli/test_documents.py",
    "cli/test_eval.py",
    "cli/test_index.py",
    "cli/test_input_problems.py",
    "cli/test_inputs.py",
    "cli/test_options.py",
    "cli/test_output_files.py",
    "cli/test_outputs.py",
    "cli/test_resume.py",
    "cli/test_search.py",
    "cli/test_search_rerank.py",
    "cli/test_stores.py",
    "cli/test_tables.py",
    "convert/test_convert.py",
    "convert/test_refused_checkpoints.py",
    "embedding/test_batching.py",
    "evaluation/test_as_search.py",
    "evaluation/test_evaluating.py",
    "evaluation/test_intervals.py",
    "evaluation/test_measures.py",
    "jobs/test_commands.py",
    "jobs/test_inputs.py",
    "jobs/test_library.py",
    "jobs/test_pairs.py",
    "jobs/test_plot.py",
    "llama/kernels/test_refused_libraries.py",
    "models/test_demo.py",
    "models/test_download.py",
    "models/test_hub.py",
    "models/test_names.py",
    "models/test_sources.py",
    "reading/test_broken.py",
    "reading/test_records.py::test_chinese_far_behind_the_beginning_of_a_file_is_found",
    "reading/test_sections.py",
    "remote/test_fleet.py",
    "remote/test_tokens.py",
    "scripts/test_compare_plan.py",
    "scripts/test_make_synthetic.py",
    "search/test_chunking.py",
    "search/test_database.py",
    "search/test_indexing.py",
    "search/test_labelled.py",
    "search/test_nearest.py",
    "search/test_old_indexes.py",
    "search/test_query_words.py",
    "search/test_rebuild.py",
    "search/test_unusable_indexes.py",
    "search/test_vector_index.py",
    "server/assistants/test_tools.py",
    "server/dialects/test_counting.py",
    "server/dialects/test_large_bodies.py",
    "server/dialects/test_mixed_inputs.py",
    "server/dialects/test_ollama.py",
    "server/dialects/test_q3e_rerank.py::test_no_request_of_the_schema_fails_in_the_server",
    "server/http/test_guard.py",
    "server/local/test_tokenizing.py",
    "server/test_bodies.py",
    "test_page_commands.py",
    "test_vectors.py",
}

_reaches: dict[object, bool] = {}


def mark(items: list[pytest.Item]) -> None:
    """Put the markers `process` and `slow` on the tests that they are meant for."""
    for item in items:
        if not SLOW.isdisjoint(_names_of(item)):
            item.add_marker("slow")
        if isinstance(item, pytest.Function) and _starts_processes(item):
            item.add_marker("process")


def is_left_out(path: Path) -> bool:
    """Whether `make quick` need not even import this file."""
    return _name(path) in FILES | SLOW


def _name(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def _names_of(item: pytest.Item) -> tuple[str, str]:
    """The file of a test, and the test without its parameters."""
    return _name(item.path), f"{_name(item.path)}::{item.name.partition('[')[0]}"


def _starts_processes(item: pytest.Function) -> bool:
    if not FILES.isdisjoint(_names_of(item)):
        return True
    fixtures = [
        found.func for name in item.fixturenames for found in item._fixtureinfo.name2fixturedefs.get(name, ())
    ]
    return any(_reaches_starter(function) for function in (item.function, *fixtures))


def _reaches_starter(used: object) -> bool:
    """Whether the code of a function or class of the tests names a starter, or calls another that does."""
    used = _inside(used)
    if used in _reaches:
        return _reaches[used]
    _reaches[used] = False  # for functions that call each other
    _reaches[used] = any(
        not STARTERS.isdisjoint(names) or any(map(_reaches_starter, _helpers(function, names)))
        for function in _functions(used)
        if (names := set(_names(function.__code__)))
    )
    return _reaches[used]


def _inside(used: Any) -> Any:
    """The function that decorators, hypothesis among them, have wrapped."""
    used = getattr(getattr(used, "hypothesis", None), "inner_test", used)
    return inspect.unwrap(used) if callable(used) else used


def _functions(used: Any) -> list[FunctionType]:
    """The function itself, or the methods of a class."""
    if isinstance(used, type):
        return [found for each in vars(used).values() if isinstance(found := _inside(each), FunctionType)]
    return [used] if isinstance(used, FunctionType) else []


def _names(code: CodeType) -> Iterator[str]:
    """Every name in the code of a function and of the functions in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _helpers(function: FunctionType, names: set[str]) -> Iterator[object]:
    """The tests' functions and classes that have these names, in the function's module or in a module it names."""
    module = function.__globals__
    named_modules = [module[name].__dict__ for name in names if isinstance(module.get(name), ModuleType)]
    for space in (module, *named_modules):
        for name in names:
            found = _inside(space.get(name))
            if isinstance(found, type | FunctionType) and _is_of_tests(found):
                yield found


def _is_of_tests(found: type | FunctionType) -> bool:
    path = getattr(sys.modules.get(found.__module__), "__file__", None)
    return path is not None and Path(path).is_relative_to(TESTS)


class Guard:
    """Notes each process that is started, so that a test without the marker cannot start one unseen."""

    def __init__(self) -> None:
        self.started: list[str] = []
        sys.addaudithook(self._hear)
        start = multiprocessing.process.BaseProcess.start

        def noted(process: multiprocessing.process.BaseProcess) -> None:
            self.started.append(f"multiprocessing: {process.name}")
            start(process)

        multiprocessing.process.BaseProcess.start = noted

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and not str(arguments[1][0]).endswith(_HARMLESS):
            self.started.append(f"subprocess: {arguments[1]}")
