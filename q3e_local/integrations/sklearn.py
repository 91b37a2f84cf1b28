"""A transformer for scikit-learn: texts to embeddings, in the place that `TfidfVectorizer` has in a pipeline.

    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from q3e_local.integrations.sklearn import Q3ETransformer

    topics = make_pipeline(Q3ETransformer("qwen3-embedding:0.6b", task="classification"), LogisticRegression())
    topics.fit(texts, labels)

Knows scikit-learn's protocol of estimators, and embedders by their public calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from q3e_local import DEFAULT_MODEL, EmbedRequest, TextModel, by_name
from q3e_local.errors import MissingPackageError, OptionError

try:
    from sklearn.base import BaseEstimator, TransformerMixin
except ModuleNotFoundError as error:
    raise MissingPackageError("a transformer for scikit-learn", "scikit-learn", "analysis") from error


class Q3ETransformer(TransformerMixin, BaseEstimator):
    """Texts to vectors: float32 (n_texts, dim), rows of length 1. There is nothing to fit.

    The parameters are names and numbers, so that it can be cloned, searched over and pickled. The model is loaded at
    the first text, or with `server` a running server computes; it is shared by all that name it, and stays until the
    program ends. `task`, `instruction` and `kind` are those of EmbedRequest.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        dim: int | None = None,
        kind: Literal["document", "query"] | None = None,
        task: str | None = None,
        instruction: str | None = None,
        truncate: bool = False,
        server: str | None = None,
        cache: bool | str | None = None,
    ) -> None:
        self.model, self.dim, self.kind, self.server, self.cache = model, dim, kind, server, cache
        self.task, self.instruction, self.truncate = task, instruction, truncate

    def fit(self, X: Iterable[str], y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        return self

    def transform(self, X: Iterable[str]) -> NDArray[np.float32]:  # noqa: N803
        """The vectors of the texts. Raises what `load` and `embed` raise, and OptionError for one text alone."""
        if isinstance(X, str | bytes):
            raise OptionError("X must be a list of texts, got one text; put it in a list")
        request = EmbedRequest([*X], self.kind, self.task, self.instruction, self.dim, self.truncate)
        return self._embedder().embed(request).vectors

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """`q3etransformer0`, `q3etransformer1`, and so on: a name for each number of a vector."""
        dim = self._embedder().dim(EmbedRequest((), dim=self.dim))
        return np.array([f"q3etransformer{place}" for place in range(dim)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit, tags.input_tags.string, tags.input_tags.two_d_array = False, True, False
        return tags

    def _embedder(self) -> TextModel:
        return by_name.embedder(self.model, self.server, self.cache)
