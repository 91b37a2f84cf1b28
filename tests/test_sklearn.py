"""The transformer for scikit-learn in scikit-learn's own pipelines; what it gives are the library's vectors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from command import expected
from fake_service import served
from paths import ROOT
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from q3e_local.errors import ModelNotHereError, OptionError
from q3e_local.integrations.sklearn import Q3ETransformer
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

ANIMALS = ["The cat sleeps.", "A dog barks at the cat.", "The bird sings.", "Our horse eats hay.", "The dog runs."]
MONEY = ["Prices fell in May.", "The budget is small.", "We pay the invoice.", "The bank lends money.", "Rent rises."]
TEXTS, LABELS = [*ANIMALS, *MONEY], ["animals"] * 5 + ["money"] * 5


def test_vectors_are_the_librarys():
    made = Q3ETransformer("demo", dim=64, task="classification").fit_transform(TEXTS)
    assert made.dtype == np.float32
    assert np.allclose(made, expected(TEXTS, dim=64, task="classification").vectors, atol=1e-5)
    question = Q3ETransformer("demo", kind="query").transform(np.array(["who pays?"]))
    assert np.allclose(question, expected(["who pays?"], kind="query").vectors, atol=1e-5)
    assert Q3ETransformer("demo").transform([]).shape == (0, 256)


def test_it_takes_the_place_of_a_vectorizer():
    topics = make_pipeline(Q3ETransformer("demo"), LogisticRegression()).fit(TEXTS, LABELS)
    assert topics.predict(["The cat runs.", "The invoice is small."]).tolist() == ["animals", "money"]
    again = pickle.loads(pickle.dumps(topics))
    assert np.array_equal(again.predict_proba(TEXTS), topics.predict_proba(TEXTS))


def test_a_search_over_its_parameters_measures_what_the_vectors_give():
    dims = [32, 64, 256]
    pipeline = make_pipeline(Q3ETransformer("demo"), LogisticRegression())
    found = GridSearchCV(pipeline, {"q3etransformer__dim": dims}, cv=5).fit(TEXTS, LABELS)
    scores = [
        cross_val_score(LogisticRegression(), expected(TEXTS, dim=dim).vectors, LABELS, cv=5).mean() for dim in dims
    ]
    assert found.cv_results_["mean_test_score"].tolist() == pytest.approx(scores)


def test_a_clone_has_its_parameters_and_names_its_numbers():
    made = Q3ETransformer("demo", dim=32, instruction="Find the animal", truncate=True)
    assert clone(made).get_params() == made.get_params()
    assert list(made.get_feature_names_out())[:2] == ["q3etransformer0", "q3etransformer1"]
    assert len(made.get_feature_names_out()) == 32


def test_one_text_and_a_model_that_is_not_here_are_told():
    with pytest.raises(OptionError, match="X must be a list of texts, got one text"):
        Q3ETransformer("demo").transform("a text")
    with pytest.raises(ModelNotHereError, match="q3e-local pull qwen3-embedding:8b"):
        Q3ETransformer("qwen3-embedding:8b").transform(["a"])


def test_a_server_computes():
    with served(LocalService(ServerSettings(models=("demo",)))) as client:
        made = Q3ETransformer("demo", dim=64, server=str(client.base_url))
        assert np.allclose(made.transform(TEXTS), expected(TEXTS, dim=64).vectors, atol=1e-4)
        assert clone(made).get_params()["server"] == str(client.base_url)
    with pytest.raises(OptionError, match="cache is for a model in this process"):
        Q3ETransformer("demo", server="localhost", cache=True).transform(TEXTS)


def test_the_lines_of_the_page_run(capsys):
    page = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    (code,) = [block.partition("```")[0] for block in page.split("```python\n")[1:] if "sklearn" in block]
    exec(compile(code, "docs/frameworks.md", "exec"), {})
    assert capsys.readouterr().out == "['animals']\n"
