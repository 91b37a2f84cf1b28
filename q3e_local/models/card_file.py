"""Read a model card from TOML, and hold each key to the format.

Knows the keys of a card; nothing of where cards or models are.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from q3e_local.embedding.prompts import Prompts
from q3e_local.errors import CardError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models.card import (
    CHECKPOINT,
    NAME_GRAMMAR,
    Checkpoint,
    LogitTable,
    ModelCard,
    ModelFile,
    ScoreTable,
    Sizes,
)
from q3e_local.reranking.prompts import RerankPrompts


def read_card(path: Path) -> ModelCard:
    """Read one card. Raises CardError naming file and key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CardError(f"cannot read the card {path}: {error}") from None
    top = _Table(path, "", data)
    name = top.text("name")
    if not NAME_GRAMMAR.fullmatch(name):
        raise CardError(
            f"{path}: name {name!r} is no model name; lower-case letters, digits, '_', '-', '.', one ':' for the tag"
        )
    source = top.table("source", optional=True)
    files = {
        quantization: _file(entry, quantization, source)
        for quantization, entry in top.table("files").tables().items()
    }
    checkpoint = None
    if source.has("checkpoint"):
        checkpoint = Checkpoint(source.text("checkpoint"), source.text("checkpoint_revision"))
    kind: ModelKind = "embedder"
    if top.has("kind"):
        kind = top.get("kind", str, "'embedder' or 'reranker'", get_args(ModelKind).__contains__)
    prompts, rerank_prompts = Prompts(), RerankPrompts()
    scores, logits = None, None
    if kind == "embedder":
        prompts = _prompts(path, top.table("prompts"))
        scores = _scores(top.table("scores", optional=True))
    else:
        rerank_prompts = _rerank_prompts(path, top.table("prompts"))
        logits = _logits(top.table("scores", optional=True))
    card = ModelCard(
        path=path,
        name=name,
        kind=kind,
        aliases=top.texts("aliases"),
        description=top.text("description"),
        license=top.text("license"),
        default=top.text("default"),
        sizes=Sizes(*(top.table("sizes").number(field.name) for field in fields(Sizes))),
        prompts=prompts,
        rerank_prompts=rerank_prompts,
        files=files,
        checkpoint=checkpoint,
        scores=scores,
        logits=logits,
    )
    made = [file.made_from for file in files.values() if file.made_from is not None and not file.is_converted]
    for needed in (card.default, *made):
        if needed not in files:
            raise CardError(f"{path}: there is no [files.{needed}], only {', '.join(files) or 'none'}")
    for quantization, file in files.items():
        origin = card.origin(file)
        if origin is not None and origin.sha256 is None:
            raise CardError(f"{path}: files.{quantization}.made_from must name a file with a sha256")
        if not NAME_GRAMMAR.fullmatch(card.tag(quantization)):
            raise CardError(
                f"{path}: [files.{quantization}] makes {card.tag(quantization)!r}, which is no model name"
            )
    top.refuse_unread()
    return card


class _Table:
    """A TOML table that knows where it stands, for errors, and which of its keys were read."""

    def __init__(self, path: Path, name: str, data: dict[str, Any]) -> None:
        self._path, self._name, self._data = path, name, data
        self._inner: dict[str, _Table] = {}
        self._read: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._data)

    def get(self, key: str, kind: type, what: str, fits: Callable[[Any], object] = lambda value: True) -> Any:
        self._read.add(key)
        value = self._data.get(key)
        if not isinstance(value, kind) or isinstance(value, bool) or not fits(value):
            seen = f"got {value!r}" if key in self._data else "it is missing"
            raise CardError(f"{self._path}: {self._name}{key} must be {what}; {seen}")
        return value

    def text(self, key: str) -> str:
        return str(self.get(key, str, "a text"))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self.get(key, list, "a list of texts", lambda texts: all(isinstance(one, str) for one in texts)))

    def number(self, key: str) -> int:
        return int(self.get(key, int, "a whole number above 0", lambda number: number > 0))

    def hex_digits(self, key: str, n_digits: int, what: str) -> str:
        fits = re.compile(rf"[0-9a-fA-F]{{{n_digits}}}").fullmatch
        return str(self.get(key, str, f"{what} of {n_digits} hex digits", fits)).lower()

    def relative_path(self, key: str) -> str:
        """A text that becomes a path here: a card may come from elsewhere."""

        def fits(path: str) -> bool:
            return {"", ".", ".."}.isdisjoint(path.split("/")) and not re.search(r"[\\:\0]", path)

        return str(self.get(key, str, "a name without '..' or ':'", fits))

    def table(self, key: str, optional: bool = False) -> _Table:
        if key not in self._inner:
            data = {} if optional and key not in self._data else self.get(key, dict, "a table")
            self._read.add(key)
            self._inner[key] = _Table(self._path, f"{self._name}{key}.", data)
        return self._inner[key]

    def tables(self) -> dict[str, _Table]:
        return {key: self.table(key) for key in self._data}

    def has(self, key: str) -> bool:
        return key in self._data

    def refuse_unread(self) -> None:
        for key in self._data:
            if key not in self._read:
                raise CardError(f"{self._path}: {self._name}{key} is no key of a card")
        for inner in self._inner.values():
            inner.refuse_unread()


def _file(table: _Table, quantization: str, source: _Table) -> ModelFile:
    is_bundled = table.has("bundled")
    made_from = table.text("made_from") if table.has("made_from") and not is_bundled else None
    repo, revision = None, None
    if made_from == CHECKPOINT:
        repo, revision = source.relative_path("checkpoint"), source.text("checkpoint_revision")
    elif not is_bundled:
        of_file = table if table.has("repo") else source  # a model's files may lie in several repositories
        repo, revision = of_file.relative_path("repo"), of_file.hex_digits("revision", 40, "a commit")
    return ModelFile(
        quantization,
        file=table.relative_path("bundled" if is_bundled else "file"),
        repo=repo,
        revision=revision,
        size_bytes=table.number("size_bytes"),
        sha256=table.hex_digits("sha256", 64, "a SHA-256") if made_from is None else None,
        made_from=made_from,
    )


def _prompts(path: Path, table: _Table) -> Prompts:
    prompts = Prompts(table.text("query"), table.text("instruction"))
    if not prompts.query.endswith("{text}") or "{instruction}" not in prompts.query:
        raise CardError(f"{path}: prompts.query must have the place {{instruction}} and end in {{text}}")
    return prompts


def _rerank_prompts(path: Path, table: _Table) -> RerankPrompts:
    prompts = RerankPrompts(table.text("body"), table.text("instruction"))
    if not re.fullmatch(r"(?s).*\{instruction\}.*\{query\}.*\{document\}", prompts.body):
        raise CardError(
            f"{path}: prompts.body must have the places {{instruction}} and {{query}} in this order, and end in "
            "{document}"
        )
    return prompts


def _logits(table: _Table) -> LogitTable | None:
    if not table:
        return None
    documents = table.texts("documents")
    logits = table.get("logits", list, "a list of numbers", _are_numbers) if table.has("logits") else []
    if len(documents) < 2 or len(logits) not in (0, len(documents)):
        raise CardError(f"{table._path}: scores.logits must be a number for each of two documents or more")
    return LogitTable(table.text("query"), documents, tuple(map(float, logits)))


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _scores(table: _Table) -> ScoreTable | None:
    if not table:
        return None
    queries, documents = table.texts("queries"), table.texts("documents")
    rows = table.get("expected", list, "a list of rows of numbers")
    try:
        expected = tuple(tuple(float(score) for score in row) for row in rows)
    except (TypeError, ValueError):
        expected = ()
    if len(expected) != len(queries) or any(len(row) != len(documents) for row in expected):
        raise CardError(f"{table._path}: scores.expected must be {len(queries)} rows of {len(documents)} numbers")
    return ScoreTable(queries, documents, expected)
