"""Whether this machine has the memory to run a model, also before its file is here.

Arithmetic on what a card or a file's header says, and on the machine's memory; downloads and loads nothing. All of it
is for the default settings on a CPU: what was tuned, and a GPU, may take more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.llama.settings import memory as plan
from q3e_local.llama.settings.defaults import Host, settle
from q3e_local.models import catalog
from q3e_local.models.card import ModelCard, ModelFile

# Not on the cards. All sizes of Qwen3-Embedding have the same KV heads; the other numbers are those of the largest.
_N_HEAD, _N_HEAD_KV, _HEAD_DIM = 32, 8, 128
_FF_PER_EMBD = 4


@dataclass(frozen=True)
class SizedModel:
    """A model of a card, and the bytes of memory it takes to run."""

    card: ModelCard
    file: ModelFile
    n_bytes: int

    @property
    def name(self) -> str:
        return self.card.tag(self.file.quantization)

    @property
    def memory(self) -> str:
        """The memory it takes, for people."""
        return f"about {_gigabytes(self.n_bytes)}"

    @property
    def disk_bytes(self) -> int:
        """What pulling it takes on the disk: the file, and the file that it is made from."""
        origin = self.card.origin(self.file)
        return self.file.size_bytes + (0 if origin is None else origin.size_bytes)


@dataclass(frozen=True)
class Shortage:
    """A model that this machine cannot run, and the largest smaller model that it can."""

    model: SizedModel
    usable_bytes: int
    instead: SizedModel | None

    def __str__(self) -> str:
        return (
            f"{self.model.name} needs {self.model.memory} of memory to run, and this machine has "
            f"{_gigabytes(self.usable_bytes)} for programs"
        )


def shortage(card: ModelCard, file: ModelFile) -> Shortage | None:
    """What is missing to run a model on this machine; None where its memory is enough."""
    model, usable = _model(card, file), machine.usable_memory()
    if model.n_bytes <= usable:
        return None
    smaller = [other for other in _published(card.kind) if other.n_bytes <= usable]
    return Shortage(model, usable, smaller[-1] if smaller else None)


def recommended() -> SizedModel | None:
    """The default model; where memory is too small for it, the largest model that fits; None where no model does."""
    card = catalog.shipped()[catalog.DEFAULT_MODEL]
    file = card.files[card.default]
    short = shortage(card, file)
    return _model(card, file) if short is None else short.instead


def smallest() -> SizedModel:
    """The embedding model that needs the least memory, the demo aside."""
    return _published("embedder")[0]


def needed_bytes(card: ModelCard, size_bytes: int, n_ctx: int = 0) -> int:
    """Memory for a file of this size of a card, and texts of `n_ctx` tokens: an upper estimate.

    A card does not state all widths. Where the file is here, `needed_by_file` is nearer.
    """
    sizes = card.sizes
    info = ModelInfo(
        path=Path(card.name),
        name=card.name,
        size_bytes=size_bytes,
        digest="",
        n_embd=sizes.n_embd,
        n_layer=sizes.n_layer,
        n_head=_N_HEAD,
        n_head_kv=_N_HEAD_KV,
        head_dim=_HEAD_DIM,
        n_ff=_FF_PER_EMBD * sizes.n_embd,
        n_ctx_train=sizes.n_ctx,
        n_vocab=sizes.n_vocab,
        eos_id=0,
        quantization="",
        added_tokens=(),
    )
    return needed_by_file(info, n_ctx)


def needed_by_file(info: ModelInfo, n_ctx: int = 0) -> int:
    """Memory for this file, and texts of `n_ctx` tokens; all texts no longer than a batch take the same."""
    config = EngineConfig()
    return plan.needed_bytes(info, plan.as_asked(config, settle(config, Host(n_cores=1), None).n_batch), n_ctx)


def _published(kind: ModelKind) -> list[SizedModel]:
    """The models of a kind that q3e-local ships cards for, each in its default quantization, smallest first."""
    models = [_model(card, card.files[card.default]) for card in catalog.shipped().values() if card.kind == kind]
    return sorted((model for model in models if model.file.repo is not None), key=lambda model: model.n_bytes)


def _model(card: ModelCard, file: ModelFile) -> SizedModel:
    return SizedModel(card, file, needed_bytes(card, file.size_bytes))


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
