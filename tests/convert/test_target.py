"""Where a conversion lands: nothing is replaced unasked, and nothing half is left, whatever happens."""

from __future__ import annotations

import os
from types import SimpleNamespace

import checkpoints
import pytest
from checkpoints import names_in
from command import failed, run

from q3e_local import convert as convert_module
from q3e_local.convert import convert, writer
from q3e_local.errors import NotEnoughDiskError, OptionError, OutputError
from q3e_local.gguf.model_file import inspect


def test_the_target_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "there.gguf").write_text("precious")
    for target, message in (
        (tmp_path / "there.gguf", "exists; replace it with --force"),
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "no" / "out.gguf", "there is no folder"),
    ):
        with pytest.raises(OutputError, match=message):
            convert(tmp_path / "nowhere", target)
    with pytest.raises(OptionError, match=r"there is no quantization 'q4_0'; choose from f32, f16, bf16, q8_0, q6_k"):
        convert(tmp_path / "nowhere", tmp_path / "out.gguf", "q4_0")
    assert (tmp_path / "there.gguf").read_text() == "precious"


def test_force_replaces_a_target(checkpoint, tmp_path):
    (tmp_path / "out.gguf").write_text("old")
    convert(checkpoint(), tmp_path / "out.gguf", "bf16", force=True)
    assert inspect(tmp_path / "out.gguf").quantization == "bf16"


def test_a_target_that_appears_meanwhile_is_kept(checkpoint, tmp_path):
    def appear(step: str, done: int, total: int) -> None:
        (tmp_path / "out.gguf").write_text("precious")

    with pytest.raises(OutputError, match="exists"):
        convert(checkpoint(), tmp_path / "out.gguf", "bf16", progress=appear)
    assert (tmp_path / "out.gguf").read_text() == "precious"
    assert names_in(tmp_path) == [checkpoints.NAME, "out.gguf"]


def test_a_full_disk_is_seen_before(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**7))
    with pytest.raises(NotEnoughDiskError, match=r"takes 0.0 GB of disk for a while, .* has 0.0 GB free; make room"):
        convert(checkpoint(), tmp_path / "out.gguf", "bf16")


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = checkpoint()
    monkeypatch.setattr(writer, "_pad", full)  # called while the file is written; a full disk is hard to come by
    with pytest.raises(NotEnoughDiskError, match="make room"):
        convert(folder, tmp_path / "out.gguf", "bf16")
    assert names_in(tmp_path) == [checkpoints.NAME]


def test_ctrl_c_leaves_nothing(checkpoint, tmp_path):
    def interrupt(step: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint(), tmp_path / "out.gguf", "bf16", progress=interrupt)
    assert names_in(tmp_path) == [checkpoints.NAME]


# The command


def test_the_command_converts_and_says_what_it_made(checkpoint, tmp_path):
    result = run("convert", checkpoint(), "-o", tmp_path / "out.gguf", "--type", "f16", "--name", "Mine")
    assert (result.exit_code, result.stdout) == (0, "")
    size = (tmp_path / "out.gguf").stat().st_size
    assert f"out.gguf: Mine, F16, {size:,} bytes in 0 s\nsha256 " in result.stderr
    again = ("convert", tmp_path / checkpoints.NAME, "-o", tmp_path / "out.gguf", "--type", "bf16")
    assert "exists; replace it with --force" in failed(*again)
    forced = run(*again, "--force", "-q")
    assert (forced.exit_code, forced.output) == (0, "")


def test_a_repository_that_is_not_here_is_one_sentence(tmp_path):
    stderr = failed("convert", "Qwen/Qwen3-Embedding-0.6B", "-o", tmp_path / "out.gguf")
    assert "config.json of Qwen/Qwen3-Embedding-0.6B is not on this machine; download it" in stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
def test_a_device_is_not_replaced(checkpoint, tmp_path):
    os.mkfifo(tmp_path / "out.gguf")
    result = run("convert", checkpoint(), "-o", tmp_path / "out.gguf", "--force")
    assert (result.exit_code, "is no regular file" in result.stderr) == (1, True)
    assert (tmp_path / "out.gguf").is_fifo()


def test_a_type_that_is_not_made_is_wrong_usage(tmp_path):
    assert run("convert", "x", "-o", tmp_path / "out.gguf", "--type", "q4_0").exit_code == 2
