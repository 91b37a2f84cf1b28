"""What the tests of conversions share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from oracle import Config, Weights
from tokenizers import Tokenizer


@pytest.fixture
def checkpoint(tmp_path: Path, weights: Weights, config: Config, tokenizer: Tokenizer) -> Callable[..., Path]:
    """`checkpoint(dtype="F16", n_shards=3)`: a checkpoint's folder, the test's own."""

    def make(**options: Any) -> Path:
        return checkpoints.write_checkpoint(tmp_path, weights, config, tokenizer, **options)

    return make


@pytest.fixture(autouse=True)
def _loud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
