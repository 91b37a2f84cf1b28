"""One contender in a process of its own: lines of JSON in, lines of JSON out.

`{"kind": ..., "options": {...}}` once, then `{"texts": [...], "ids": [...]}` any number of times. Vectors go to a
file, since handing them over is not what is measured. Runs under the contender's Python, which may have none of this
project's packages but NumPy: everything else is imported where it is used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # where the package of this file is

from comparison import graphs, peak, runtimes
from comparison.kind import Embed, NotHereError, Started

KINDS: dict[str, Callable[..., Started]] = {
    "library": runtimes.ours,
    "llama_embed": runtimes.llama_embed,
    "torch": graphs.torch_model,
    "openvino": graphs.openvino,
    "optimum": graphs.optimum,
    "onnxruntime": graphs.onnx_runtime,
    "qwen3_embed": runtimes.qwen3_embed,
    "fastembed": runtimes.fastembed,
    "peak": peak.peak,
}


def main() -> None:
    sys.path.pop(0)  # this folder, whose modules are none of the contender's
    # What a library prints must not come between the lines of the answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    embed: Embed | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "kind" in request:
                embed, settings = KINDS[request["kind"]](**request["options"])
                answer: dict[str, Any] = {"settings": settings}
            else:
                assert embed is not None
                began = time.perf_counter()
                vectors, n_tokens = embed(request)
                answer = {"seconds": time.perf_counter() - began, "tokens": n_tokens}
                if "vectors" in request:
                    np.save(Path(request["vectors"]), np.asarray(vectors, np.float32))
                else:
                    answer["found"] = vectors
        except NotHereError as error:
            answer = {"not_here": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
