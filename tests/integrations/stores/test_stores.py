"""What holds for every store, with the real ones: each in a folder, and where its package has a server, there too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import store_contract
from store_contract import Case

sys.path.insert(0, str(Path(__file__).parent))

from cases import NAME, Chroma, Lance, Milvus, Pgvector, Qdrant

STORES: dict[str, Callable[[pytest.FixtureRequest, Path], Case]] = {
    "qdrant": lambda request, folder: Qdrant(folder),
    "qdrant-server": lambda request, folder: Qdrant(
        folder,
        f"qdrant://:k%25y@127.0.0.1:{request.getfixturevalue('qdrant_server').port}#{NAME}",
        request.getfixturevalue("qdrant_server").client,
    ),
    "milvus": lambda request, folder: Milvus(str(folder / "m.db"), f"milvus:{folder / 'm.db'}#{NAME}"),
    "milvus-server": lambda request, folder: Milvus(
        f"http://127.0.0.1:{request.getfixturevalue('milvus_port')}",
        f"milvus://127.0.0.1:{request.getfixturevalue('milvus_port')}#{NAME}",
    ),
    "pgvector": lambda request, folder: Pgvector(request.getfixturevalue("postgres").get_uri()),
    "lancedb": lambda request, folder: Lance(folder),
    "chroma": lambda request, folder: Chroma(f"chroma:{folder / 'chroma'}#{NAME}", folder / "chroma"),
    "chroma-server": lambda request, folder: Chroma(
        f"chroma://127.0.0.1:{request.getfixturevalue('chroma_port')}#n{uuid4().hex}",
        port=request.getfixturevalue("chroma_port"),
    ),
}


@pytest.fixture(params=STORES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return STORES[request.param](request, tmp_path)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "notes.q3e"


def test_the_same_is_found(case: Case, index: Path) -> None:
    store_contract.check_the_same_is_found(case, index)


def test_again_sends_what_changed_and_deletes_what_is_gone(case: Case, index: Path) -> None:
    store_contract.check_again_sends_what_changed_and_deletes_what_is_gone(case, index)


def test_an_interrupted_export_goes_on(case: Case, index: Path) -> None:
    store_contract.check_an_interrupted_export_goes_on(case, index)


def test_rows_of_others_are_left_alone(case: Case, index: Path) -> None:
    store_contract.check_rows_of_others_are_left_alone(case, index)


def test_vectors_of_another_space_are_refused(case: Case, index: Path) -> None:
    store_contract.check_vectors_of_another_space_are_refused(case, index)
