"""sentence-transformers on a card, in bf16: `python torch_child.py OPTIONS`, under a Python that has it.

Reads texts that child.py wrote, and a checkpoint of the same weights. Prints a row of JSON for each round.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from timing import timed

# As the published models have them.
_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def main(options: dict[str, Any]) -> None:
    import torch
    from sentence_transformers import SentenceTransformer, __version__

    folder = Path(options["checkpoint"])
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    pooling = {"word_embedding_dimension": size, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
    (folder / "modules.json").write_text(json.dumps(_MODULES), encoding="utf-8")
    for name, content in (("1_Pooling", pooling), ("2_Normalize", {})):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(content), encoding="utf-8")
    device = "cuda" if torch.cuda.is_available() and options["device"] != "none" else "cpu"
    model = SentenceTransformer(
        str(folder), device=device, model_kwargs={"dtype": torch.bfloat16}, tokenizer_kwargs={"padding_side": "left"}
    )
    name = f"sentence-transformers {__version__}, torch {torch.__version__}, bf16, {device}"
    texts = json.loads((Path(options["work"]) / f"{options['model']}-texts.json").read_text(encoding="utf-8"))
    for length, by_mode in texts.items():
        for mode, given in by_mode.items():
            row = {"kind": "speed", "model": options["model"], "runtime": name, "tokens": int(length)}
            n_found = len(model.tokenize(given[:1])["input_ids"][0])
            if n_found != int(length):
                row["why"] = f"its tokenizer finds {n_found} tokens"
                print(json.dumps(row), flush=True)
                continue

            def embed(texts: list[str], length: str = length) -> object:
                return model.encode(texts, batch_size=max(1, min(64, 65_536 // int(length))))

            try:
                for seconds in timed(embed, lambda texts=given: texts):
                    done = row | {"mode": mode, "texts": len(given), "seconds": seconds}
                    print(json.dumps(done), flush=True)
            except torch.OutOfMemoryError as error:
                print(json.dumps(row | {"why": str(error).splitlines()[0]}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
