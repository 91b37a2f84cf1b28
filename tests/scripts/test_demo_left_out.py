"""What comes near to the questions that the demo model is judged by is in nothing that the model is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from demo_scripts import FOLDER, imported


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    with imported(FOLDER, ("vocabulary", "corpus")) as found:
        yield found


@pytest.fixture
def corpus(parts, tmp_path):
    """The examples that are written, and one pair and one sentence beside them."""
    pair = {"source": "here", "kind": "translation", "la": "en", "a": "a door", "lb": "zh", "b": "一扇门"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair), encoding="utf-8")
    (tmp_path / "sentences.jsonl").write_text(json.dumps({"text": "A sentence."}), encoding="utf-8")
    return parts.corpus.Corpus(tmp_path)


def test_an_example_that_the_teacher_sees_near_is_learned_from_no_more(parts, corpus):
    judged = parts.corpus.judged_texts()
    theirs = np.zeros((len(judged), 384), np.float32)
    theirs[:, 0] = 1
    theirs[7] = np.eye(384, dtype=np.float32)[1]
    sides = [side for example in corpus.examples for side in example]
    known = dict.fromkeys(sides, np.eye(384, dtype=np.float16)[2])
    near, far = corpus.examples[3], corpus.examples[4]
    # Cosines of 0.94 and 0.92 with text 7; the limit is 0.93.
    known[near[5]] = np.float16([0, 0.94, (1 - 0.94**2) ** 0.5, *[0] * 381])
    known[far[0]] = np.float16([0, 0.92, (1 - 0.92**2) ** 0.5, *[0] * 381])
    n_before = len(corpus.examples)
    assert corpus.leave_out_near(known, theirs) == [f"0.940\t{near[5]}\t{judged[7]}"]
    assert len(corpus.examples) == n_before - 1
    assert far in corpus.examples
    assert not set(near) & corpus.learned().keys()
    assert "a door" in corpus.learned()


def test_the_script_writes_over_no_file_unasked(tmp_path):
    pytest.importorskip("torch", reason="torch is installed for training only")
    taken = tmp_path / "demo.gguf"
    taken.write_bytes(b"mine")
    command = [sys.executable, FOLDER / "make.py", "-w", tmp_path / "work", "-o", taken]
    root = Path(__file__).parents[2]
    answer = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)})
    assert (answer.returncode, taken.read_bytes()) == (1, b"mine")
    assert "exists; pass --force to write over it" in answer.stderr
