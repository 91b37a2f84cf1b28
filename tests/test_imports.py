"""The house stands as designed: imports go one way, each foreign thing has one owner, and starting is light.

Reads the imports from the source, those inside functions too.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import q3e_local

PACKAGE = Path(q3e_local.__file__).parent

# A module may import those of its own room and of the rooms above it in this list.
ROOMS = [
    names.split()
    for names in (
        "errors vectors space files machine sqlite wording",
        "gguf cache reading",
        "embedding convert stores",
        "llama reranking",
        "models search jobs remote",
        "opening",  # load() and connect() join the parts
        "by_name",
        "batches",
        "q3e_local",  # the public names
        "checks evaluation integrations server",
        "cli",
        "__main__",
    )
]
# The same inside a wing. "*" is what stands in the wing itself, or in a room that is not named.
INSIDE = {
    # Progress stands above writing, because its line is made of what writing shows. The wing itself finds commands by
    # their names.
    "cli": [
        "exit_codes again candidates option_groups plain_characters stdout terminal",
        "asking stopping",
        "writing",
        "progress",
        "computing",
        "texts",
        "commands jobs",
        "*",
    ],
    "evaluation": [
        "columns data intervals",
        "classes passages records",
        "comparing embedding judging labelled_files proposing result tasks",
        "models picture runs",
        "measures",
        "asking measuring",
        "evaluating",
        "*",
    ],
    "search": ["places", "database", "*", "indexing"],
    "server": [
        "errors settings",
        "service served_names",
        "workers",
        "local",
        "dialects http",
        "assistants",
        "app",
        "run *",
    ],
}
# Who may import what is not ours and not Python's.
FOREIGN = {
    "llama_cpp": {"llama.binding"},
    "huggingface_hub": {"models.download"},
    "httpx2": {"models.download", "remote"},
    "redis": {"cache.redis", "stores.redis"},  # what each keeps there is its own
    "qdrant_client": {"stores.qdrant"},
    "pymilvus": {"stores.milvus"},
    "psycopg": {"stores.pgvector"},
    "pgvector": {"stores.pgvector"},
    "httpx": {"stores.chroma"},  # comes with it
    "sqlite_vec": {"stores.sqlite_vec"},
    "filelock": {"files"},
    "gguf": {"convert", "gguf.rows"},
    "psutil": {"machine"},
    "platformdirs": {"files"},
    "click": {"cli"},
    "rich": {"cli"},
    "orjson": {"cli", "server", "search.export", "stores", "reading.records.json_lines", "evaluation.records"},
    "pyarrow": {"batches.kinds", "reading.records.parquet"},
    "chromadb": {"integrations.chroma", "stores.chroma"},
    "haystack": {"integrations.haystack"},
    "lancedb": {"integrations.lancedb", "stores.lancedb"},
    "langchain_core": {"integrations.langchain"},
    "llama_index": {"integrations.llama_index"},
    "llm": {"integrations.llm"},
    "sklearn": {"integrations.sklearn", "jobs.clustering", "jobs.mapping", "evaluation.classes"},
    "threadpoolctl": {"jobs.clustering", "jobs.mapping", "evaluation.classes"},  # comes with it
    "scipy": {"evaluation.intervals"},
    "pytrec_eval": {"evaluation.measures"},
    "matplotlib": {"jobs.drawing", "jobs.fonts", "evaluation.picture"},
    "apsw": {"sqlite", "cache.sqlite", "search.database", "stores.sqlite_vec"},
    "watchfiles": {"search.indexing.watch"},
    "charset_normalizer": {"reading.encodings"},
    "markdown_it": {"reading.formats.markdown", "server.http.docs"},
    "docutils": {"reading.formats.rst"},
    "lxml": {"reading.markup"},
    "openpyxl": {"reading.workbooks"},
    "pypdf": {"reading.formats.pdf"},
    "docx": {"reading.formats.word"},
    "pptx": {"reading.formats.slides"},
    "odfdo": {"reading.formats.opendocument"},
    "striprtf": {"reading.formats.rich_text"},
    "mcp": {"server.assistants"},
    "starlette": {"server.app", "server.assistants", "server.dialects", "server.http"},
    "uvicorn": {"server.run", "server.http.connection"},
    "httptools": {"server.http.connection"},
    "uvloop": {"server.run"},
    "prometheus_client": {"server.http.metrics"},
    "mteb": {"integrations.mteb"},
    "tqdm": {"integrations.mteb"},  # comes with it
}
EVERYWHERE = {"numpy"}
# Python's own, and yet nobody's: two SQLite libraries that have one file open would take each other's locks away.
UNUSED = {"sqlite3"}


def name_of(path: Path) -> str:
    """`llama.binding` for q3e_local/llama/binding.py; `q3e_local` for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "q3e_local"


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(name: str) -> set[str]:
    """Dotted names this module imports; ours without `q3e_local.`."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            module = node.module or ""
            inside = {f"{module}.{alias.name}" for alias in node.names}
            ours = {each for each in inside if each.removeprefix("q3e_local.") in MODULES}
            found |= ours or {module}
    return {each.removeprefix("q3e_local.") for each in found}


def commands() -> dict[str, tuple[str, str]]:
    """By name: where the command line finds a command, as `module:function`, and its line of help."""
    for node in ast.parse(MODULES["cli"].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_GROUPS":
            groups: dict[str, dict[str, tuple[str, str]]] = ast.literal_eval(node.value)
            return {name: command for group in groups.values() for name, command in group.items()}
    raise AssertionError("the command line has no table of commands")


COMMANDS = commands()


def room(name: str) -> int:
    top = name.split(".")[0]
    (number,) = [number for number, names in enumerate(ROOMS) if top in names]
    return number


def test_every_module_has_a_room():
    assert {name.split(".")[0] for name in MODULES} <= {name for names in ROOMS for name in names}


def ours() -> Iterator[tuple[str, str]]:
    """Each module of the package with each module of the package that it imports."""
    return ((name, other) for name in MODULES for other in imports(name) & MODULES.keys())


def test_imports_go_one_way():
    for name, other in ours():
        if name.split(".")[0] != other.split(".")[0]:
            assert room(other) < room(name) or room(other) == 0, f"{name} imports {other}"


@pytest.mark.parametrize("wing", INSIDE)
def test_imports_inside_a_wing_go_one_way(wing):
    order = [row.split() for row in INSIDE[wing]]
    named = {part for row in order for part in row}

    def place(name: str) -> tuple[int, str]:
        part = name.split(".")[1] if "." in name else "*"
        part = part if part in named else "*"
        (row,) = [number for number, names in enumerate(order) if part in names]
        return row, part

    for name, other in ours():
        if name.split(".")[0] == other.split(".")[0] == wing:
            there, here = place(other), place(name)
            assert there[0] < here[0] or there == here, f"{name} imports {other}"


def test_integrations_use_what_everybody_may():
    for name, other in ours():
        if name.startswith("integrations"):
            assert other in ("q3e_local", "errors", "by_name"), f"{name} imports {other}"


def test_every_command_is_where_the_command_line_looks_for_it():
    for name, (place, _) in COMMANDS.items():
        module, function = place.split(":")
        assert f"cli.{module}" in MODULES, name
        assert module.split(".")[0] in ("commands", "jobs"), name
        functions = ast.parse(MODULES[f"cli.{module}"].read_text(encoding="utf-8")).body
        assert function in {each.name for each in functions if isinstance(each, ast.FunctionDef)}, name


def test_neither_the_embedder_nor_the_command_line_imports_what_loads_llama_cpp():
    native = {"llama_cpp"}
    while more := {name for name in MODULES if name.startswith("llama.") and imports(name) & native} - native:
        native |= more
    for name in MODULES:
        if name == "embedding.embedder" or name.split(".")[0] == "cli":
            assert not imports(name) & native


def test_each_foreign_thing_has_one_owner():
    for name, other in ((module, each) for module in MODULES for each in imports(module)):
        top = other.split(".")[0]
        assert top not in UNUSED, f"{name} imports {top}"
        if other not in MODULES and top not in sys.stdlib_module_names and top not in EVERYWHERE:
            owners = FOREIGN.get(top, set())
            assert any(f"{name}.".startswith(f"{owner}.") for owner in owners), f"{name} imports {top}"


@pytest.mark.parametrize(
    "what",
    [
        "import q3e_local",
        "import q3e_local.cli",
        "from q3e_local.cli import main; main(['--help'], standalone_mode=False)",
        "import q3e_local.models.installed; q3e_local.models.installed.installed()",
    ],
)
def test_starting_loads_nothing_heavy(what):
    heavy = {
        "llama_cpp", "huggingface_hub", "pyarrow", "torch", "transformers", "sqlite3", "redis", "apsw", "watchfiles",
        "sklearn", "matplotlib", "charset_normalizer", "markdown_it", "docutils", "lxml", "pypdf", "docx", "pptx",
        "openpyxl", "odfdo", "striprtf", "starlette", "uvicorn", "prometheus_client", "uvloop",
        "httpx2", "filelock", "mcp", "mteb", "scipy", "pytrec_eval", "qdrant_client", "pymilvus", "psycopg",
        "lancedb", "chromadb", "sqlite_vec",
    }  # fmt: skip
    if "cli" not in what:
        heavy |= {"click", "rich"}
    script = f"import sys\n{what}\nprint(*sys.modules, file=sys.stderr)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not heavy & set(answer.stderr.split())


def test_embedding_a_text_loads_nothing_that_only_stores_need():
    command = [sys.executable, "-X", "importtime", "-m", "q3e_local", "embed", "--text", "hello", "-m", "demo"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(re.findall(r"q3e_local\.stores\.\w+", answer.stderr)) == {"q3e_local.stores.address"}


def test_the_public_names_are_these():
    assert set(q3e_local.__all__) == {
        "DEFAULT_MODEL", "DEFAULT_RERANKER", "EmbedBatches", "EmbedRequest", "EmbedResult", "Embedded", "Embedder",
        "Engine", "EngineConfig", "Progress", "Q3EError", "RankModel", "RankRequest", "Ranked", "Reranker",
        "TextModel", "VectorIndex", "connect", "connect_reranker", "load", "load_reranker",
    }  # fmt: skip
    assert all(getattr(q3e_local, name) is not None for name in q3e_local.__all__)


def test_dir_shows_the_public_names_alone_and_the_others_are_still_there():
    assert dir(q3e_local) == sorted(q3e_local.__all__)
    assert q3e_local.__version__
    assert importlib.import_module("q3e_local.errors") is q3e_local.errors


def test_every_module_says_what_it_is_for():
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name
