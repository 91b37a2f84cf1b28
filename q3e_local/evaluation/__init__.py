"""How good search and vectors are on labelled data, column beside column: models, dims, dtypes, modes, rerankers.

    from pathlib import Path
    from q3e_local.evaluation import columns, evaluate, read_data

    questions = read_data(Path("questions.jsonl"))  # {"query": "…", "relevant": ["notes/a.md"]}
    found = evaluate(questions, columns(dims=(256, 128)), index=Path("notes.q3e"))
    for result in found.results:
        print(result.measures["ndcg_at_10"], found.verdict(result))

Rankings are measured by trec_eval, classes by scikit-learn, differences by scipy's bootstrap: pip install
'q3e-local[eval]'. Knows no terminal.
"""

from __future__ import annotations

from q3e_local.evaluation.columns import Column, columns
from q3e_local.evaluation.data import Corpus, Document, LabelledText, LabelledTexts, Pair, Pairs, Question, Questions
from q3e_local.evaluation.evaluating import evaluate
from q3e_local.evaluation.intervals import Difference
from q3e_local.evaluation.labelled_files import read_corpus, read_data
from q3e_local.evaluation.models import Models
from q3e_local.evaluation.result import ColumnResult, Evaluation

__all__ = [
    "Column",
    "ColumnResult",
    "Corpus",
    "Difference",
    "Document",
    "Evaluation",
    "LabelledText",
    "LabelledTexts",
    "Models",
    "Pair",
    "Pairs",
    "Question",
    "Questions",
    "columns",
    "evaluate",
    "read_corpus",
    "read_data",
]
