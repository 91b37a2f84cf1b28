"""OpenAI's client with the server on this machine. Start it first: q3e-local serve -m demo"""

import sys

from openai import OpenAI

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:11434"

with OpenAI(base_url=f"{address}/v1", api_key="any") as client:
    answer = client.embeddings.create(model="demo", input=["The budget was approved.", "预算获得批准。"])
    question = client.embeddings.create(model="demo-query", input="was the budget approved?")

print(f"{len(answer.data)} documents of {len(answer.data[0].embedding)} numbers, {answer.usage.prompt_tokens} tokens")
print(f"1 question of {len(question.data[0].embedding)} numbers")
