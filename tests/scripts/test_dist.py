"""`make dist` hands out nothing that lacks a part or promises too much; the whole of it runs in .ci/run."""

from __future__ import annotations

import runpy
import sys
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

dist = runpy.run_path(str(ROOT / "scripts" / "dist.py"))
NotProvedError = dist["NotProvedError"]
MODELS = ["q3e_local/models/cards/demo.gguf", "q3e_local/models/cards/demo-reranker.gguf"]


def wheel(folder: Path, *names: str, tag: str = "any") -> Path:
    path = folder / f"q3e_local-1.2.3-py3-none-{tag}.whl"
    with zipfile.ZipFile(path, "w") as content:
        for name in names:
            content.writestr(name, b"")
        content.writestr("q3e_local-1.2.3.dist-info/METADATA", "Name: q3e-local\nVersion: 1.2.3\n\nWhat it is.\n")
    return path


def test_a_wheel_without_a_model_is_named(tmp_path):
    with pytest.raises(NotProvedError, match=r"any\.whl lacks .*demo-reranker\.gguf"):
        dist["check_wheel"](wheel(tmp_path, MODELS[0], dist["KERNELS"]))


@pytest.mark.skipif(not dist["HAS_KERNELS"], reason="there are no kernels for this system")
def test_a_wheel_without_kernels_is_named_where_there_are_some(tmp_path):
    with pytest.raises(NotProvedError, match=r"lacks q3e_local/llama/kernels/q3e_kernels\.so"):
        dist["check_wheel"](wheel(tmp_path, *MODELS))


def test_a_whole_wheel_passes(tmp_path):
    dist["check_wheel"](wheel(tmp_path, *MODELS, dist["KERNELS"]))


@pytest.mark.parametrize(
    ("tag", "said", "passes"),
    [
        ("manylinux_2_17_x86_64", "manylinux_2_17_x86_64", True),
        ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", True),
        ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64", False),
        ("manylinux_2_17_x86_64", "linux_x86_64", False),
    ],
)
def test_a_name_promises_no_older_system_than_auditwheel_finds(tmp_path, monkeypatch, tag, said, passes):
    # As auditwheel 6.8 says it, in a module of its name.
    (tmp_path / "auditwheel.py").write_text(
        f"print('q3e_local is consistent with the following platform\\ntag: \"{said}\".')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = wheel(tmp_path, *MODELS, dist["KERNELS"], tag=tag)
    if passes:
        dist["check_wheel"](made)
    else:
        with pytest.raises(NotProvedError, match=f"(?s)promises {tag}; auditwheel says:.*{said}"):
            dist["check_wheel"](made)


def test_the_version_of_a_wheel_is_that_of_its_metadata(tmp_path):
    assert dist["version_of"](wheel(tmp_path)) == "1.2.3"


def test_a_command_that_fails_is_shown_with_all_that_it_said():
    with pytest.raises(NotProvedError, match="ended with 3:\nout\nerr"):
        dist["run"](sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
