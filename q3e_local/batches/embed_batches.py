"""`EmbedBatches`: what Ray, Spark, Dask and Daft call with batch after batch, in many processes.

Says which text of a batch gets which vector, and what becomes of a text that gets none. Leaves the kinds of batches
to kinds.py, and opening the model to by_name.py, once a process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np

from q3e_local import by_name
from q3e_local.batches.kinds import Batch, Columns, opened_batch
from q3e_local.batches.threads import granted_threads
from q3e_local.embedding.prompts import Kind
from q3e_local.embedding.request import EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InvalidTextError, OptionError, TextError
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.models.installed import path_of
from q3e_local.wording.spelling import nearest


@dataclass(frozen=True)
class EmbedBatches:
    """Called with a batch, answers the same batch with a column of vectors behind its own columns.

    A batch is a dict of arrays or lists, a pandas DataFrame, an Arrow Table or RecordBatch, a list of dicts, or a
    list of texts, whose answer is a list of vectors. An iterator of batches gives an iterator, as Spark wants it.

    The object holds names and numbers alone, so that it can be pickled and sent to other machines. A process loads
    the model at its first batch, once for all objects that name it. The model has to be on that machine: nothing is
    downloaded. Safe to use from several threads.
    """

    model: str | os.PathLike[str] = DEFAULT_MODEL  # a name, or a path that every machine has
    column: str = "text"
    output: str = "embedding"
    kind: Kind = "document"
    dim: int | None = None
    _: KW_ONLY
    task: str | None = None  # these four are EmbedRequest's
    instruction: str | None = None
    truncate: bool = False  # and a column `<output>_truncated` says which texts were cut
    max_tokens: int | None = None
    errors: Literal["raise", "null"] = "raise"  # null: no vector, and a column `<output>_error` says why
    n_threads: int | None = None  # None: as many as the program that calls gave this process
    server: str | Sequence[str] | None = None  # addresses of servers that compute, as `connect` takes them

    def __post_init__(self) -> None:
        """Raises OptionError for what cannot be meant; options that depend on the model are checked with a batch."""
        if self.errors not in ("raise", "null"):
            raise OptionError(f"errors must be 'raise' or 'null', got {self.errors!r}", "errors")
        if self.column == self.output:
            raise OptionError(f"output must not be the column of the texts, {self.column!r}", "output")
        if self.server is not None and self.n_threads is not None:
            raise OptionError("n_threads is of a model in this process, and a server computes; leave one out")
        if self.server is not None and not isinstance(self.server, str):
            object.__setattr__(self, "server", tuple(self.server))
        if self.server is not None and not self.server:
            raise OptionError("server names no address; leave it out for a model in this process", "server")
        path = path_of(self.model)
        if path is not None and self.server is None:  # other processes have another working folder
            object.__setattr__(self, "model", str(path.absolute()))

    def __call__(self, batch: Any) -> Any:
        """The batch with its vectors: float32 of `dim` numbers and length 1.

        Arrow gets a list column of fixed size; a pandas column holds arrays (dim,); a dict of arrays gets an array
        (n, dim); a list of dicts gets arrays (dim,). Arrow's lists have no fixed size with `errors="null"`, because
        pyarrow before 26 cannot read nulls among lists of fixed size from Parquet, and in batches of an iterator,
        because Spark does not know fixed sizes.

        A text that is missing, blank or too long, or is no text, raises TextError with its row in the batch. With
        `errors="null"` its row has no vector (NaN in an array, which has no null) and the reason beside it.

        Raises what `load`, or `connect`, and `embed` raise; OptionError also for a batch without the column, or with
        a column of the name of a new one.
        """
        if isinstance(batch, Iterator):
            return (self._embedded(each, fixed_size=False) for each in batch)
        return self._embedded(batch, fixed_size=self.errors == "raise")

    @property
    def space(self) -> str:
        """The name of the vectors' space. Loads the model."""
        return self._model().space(self._request(()))

    def _embedded(self, batch: Any, *, fixed_size: bool) -> Any:
        opened = opened_batch(batch, self.column)
        self._check(opened)
        return opened.joined(self._columns(opened.texts()), fixed_size=fixed_size)

    def _check(self, batch: Batch) -> None:
        names, new = batch.names(), [self.output]
        if self.truncate:
            new.append(f"{self.output}_truncated")
        if self.errors == "null":
            new.append(f"{self.output}_error")
        if names is None:
            if len(new) > 1:
                raise OptionError(
                    "a list of texts has no place for what was cut or failed; hand over a dict, "
                    f"{{{self.column!r}: texts}}, or leave out truncate and errors"
                )
            return
        n_columns = list(names).count(self.column)
        if not n_columns:
            like = nearest(self.column, map(str, names)) or names
            raise OptionError(f"the batch has no column {self.column!r}; it has {', '.join(map(repr, like))}")
        if n_columns > 1:
            raise OptionError(f"the batch has {n_columns} columns {self.column!r}; give all but one other names")
        for name in new:
            if name in names:
                raise OptionError(f"the batch has a column {name!r} already; give another name as output")

    def _columns(self, texts: Sequence[Any]) -> Columns:
        """What the batch gets. Raises the TextError of a text that fails, unless errors become nulls."""
        reasons: list[str | None] = [None] * len(texts)
        good: list[int] = []
        for row, text in enumerate(texts):
            why = _why_unfit(text)
            if why is None:
                good.append(row)
            else:
                reasons[row] = self._told(InvalidTextError(why, row))
        model = self._model()
        request = self._request([texts[row] for row in good])
        vectors = np.full((len(texts), model.dim(request)), np.nan, np.float32)
        truncated = np.zeros(len(texts), bool)
        for row, item in zip(good, model.stream(request), strict=True):
            if isinstance(item, TextError):
                item.index = row
                reasons[row] = self._told(item)
            else:
                vectors[row], truncated[row] = item.vector, item.truncated
        return Columns(
            self.output,
            vectors,
            np.array([reason is not None for reason in reasons], bool),
            truncated if self.truncate else None,
            np.array(reasons, object) if self.errors == "null" else None,
            {"model": model.model, "space": model.space(request)},
        )

    def _told(self, error: TextError) -> str:
        """The reason for a row of nulls. Raises the error where there are none."""
        if self.errors == "raise":
            where = f"row {error.index} of {self.column!r} in the batch"
            raise type(error)(f"{error.message} ({where}; errors='null' goes on without it)", error.index)
        return error.message

    def _request(self, texts: Sequence[str]) -> EmbedRequest:
        return EmbedRequest(
            texts, self.kind, self.task, self.instruction, self.dim, self.truncate, self.max_tokens
        )  # fmt: skip

    def _model(self) -> TextModel:
        if self.server is not None:
            return by_name.embedder(os.fspath(self.model), self.server)
        return by_name.embedder(os.fspath(self.model), n_threads=self.n_threads or granted_threads())


def _why_unfit(text: Any) -> str | None:
    """Why a value is not embedded; None for a text. `embed` checks what else a text must be."""
    if text is None:
        return "is missing"
    if isinstance(text, bytes):
        return "is not text in UTF-8 but bytes"
    return "is blank" if isinstance(text, str) and not text.strip() else None
