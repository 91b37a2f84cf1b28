"""Tasks of mteb over the 100 documents of scripts/bench/understanding, and what their scores must be.

Each document has a question in its own language and one in the other, so each question has one right document.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

ROOT = Path(__file__).parents[3]
FILE = ROOT / "scripts" / "bench" / "understanding" / "questions.jsonl"
LINES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
DOCUMENTS = [line["text"] for line in LINES]
# The right document of question i is i % 100.
QUESTIONS = [line["same"] for line in LINES] + [line["across"] for line in LINES]
INSTRUCTION = "Given a question about everyday life or technology, find the note that answers it"


def metadata(name: str, type: str = "Retrieval", prompt: object = None) -> TaskMetadata:
    """mteb's description of a task that has no data set."""
    return TaskMetadata(
        name=name,
        description="A task of q3e-local's tests",
        dataset={"path": "q3e-local/none", "revision": "1"},
        type=type,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn", "cmn-Hans"],
        main_score="ndcg_at_10",
        prompt=prompt,
    )


class NotesRetrieval(AbsTaskRetrieval):
    """Find the document of each question."""

    metadata = metadata("Q3ENotesRetrieval", prompt={"query": INSTRUCTION})
    questions = QUESTIONS

    def load_data(self, num_proc: int | None = None, **kwargs: object) -> None:
        if self.data_loaded:
            return
        documents = [{"id": f"d{place}", "title": "", "text": text} for place, text in enumerate(DOCUMENTS)]
        queries = [{"id": f"q{place}", "text": text} for place, text in enumerate(self.questions)]
        relevant = {f"q{place}": {f"d{place % len(DOCUMENTS)}": 1} for place in range(len(self.questions))}
        split = RetrievalSplitData(
            corpus=Dataset.from_list(documents),
            queries=Dataset.from_list(queries),
            relevant_docs=relevant,
            top_ranked=None,
        )
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class FewNotesRetrieval(NotesRetrieval):
    """The same of few questions, for what takes long."""

    metadata = metadata("Q3EFewNotesRetrieval", prompt={"query": INSTRUCTION})
    questions = QUESTIONS[:20]


def ndcg_at_10(scores: np.ndarray) -> float:
    """The mean of 1 / log2(1 + rank) of each question's one right document, of scores (n_questions, n_documents)."""
    right = np.arange(len(scores)) % scores.shape[1]
    ranks = 1 + (scores > scores[np.arange(len(scores)), right][:, None]).sum(axis=1)
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean())
