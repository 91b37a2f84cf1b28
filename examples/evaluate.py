"""How good search is at two dims. Make the index first: q3e-local index examples/notes -m demo --db notes.q3e"""

import sys
from pathlib import Path

from q3e_local import Q3EError
from q3e_local.evaluation import columns, evaluate, read_data

try:
    questions = read_data(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/eval/questions.jsonl"))
    found = evaluate(questions, columns(dims=(256, 128)), index=Path("notes.q3e"))
except Q3EError as error:
    sys.exit(f"Error: {error}")

for name, result in zip(found.names, found.results, strict=True):
    print(f"{name}: nDCG@10 {result.measures['ndcg_at_10']:.2f} {found.verdict(result)}")
