// The `ollama` and `openai` packages against a server: `node clients.mjs PACKAGES URL` prints what they got as JSON.
// Whether that is right is for test_server_node.py to say.

import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [packages, url] = process.argv.slice(2);
const require = createRequire(path.join(packages, "index.js"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { Ollama } = await load("ollama");
const { default: OpenAI } = await load("openai");

const TEXTS = ["the cat sat on the mat", "日本語 🙂", "Tiế̂ng"];
const LONG = "word ".repeat(100);
const SHORT_CONTEXT = { num_ctx: 50 };

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: error.name, type: error.constructor.name, message: error.message,
             status: error.status ?? error.status_code ?? null, code: error.code ?? null, param: error.param ?? null };
  }
  return null;
}

async function withOllama() {
  const client = new Ollama({ host: url });
  return {
    one: await client.embed({ model: "demo", input: TEXTS[0] }),
    many: await client.embed({ model: "demo", input: TEXTS }),
    dimensions: await client.embed({ model: "demo", input: TEXTS, dimensions: 64 }),
    query: await client.embed({ model: "demo-query", input: TEXTS[0] }),
    older: await client.embeddings({ model: "demo", prompt: TEXTS[0] }),
    cut: await client.embed({ model: "demo", input: LONG, options: SHORT_CONTEXT }),
    together: await Promise.all(Array.from({ length: 20 }, (_, i) =>
      client.embed({ model: "demo", input: `${TEXTS[0]} ${i}` }))),
    list: await client.list(),
    show: await client.show({ model: "demo" }),
    ps: await client.ps(),
    version: await client.version(),
    wrong_model: await failure(client.embed({ model: "nobody-knows", input: "a" })),
    wrong_show: await failure(client.show({ model: "nobody-knows" })),
    too_long: await failure(client.embed({ model: "demo", input: LONG, options: SHORT_CONTEXT, truncate: false })),
    chat: await failure(client.chat({ model: "demo", messages: [{ role: "user", content: "hi" }] })),
  };
}

async function withOpenAI() {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
  const models = [];
  for await (const model of client.models.list()) models.push(model);
  const create = (fields) => client.embeddings.create({ model: "demo", ...fields });
  return {
    one: await create({ input: TEXTS[0] }), // without encoding_format the package asks for base64
    many: await create({ input: TEXTS }),
    floats: await create({ input: TEXTS, encoding_format: "float" }),
    base64: await create({ input: TEXTS[0], encoding_format: "base64" }),
    dimensions: await create({ input: TEXTS, dimensions: 64 }),
    query: await create({ input: TEXTS[0], input_type: "query" }),
    together: await Promise.all(Array.from({ length: 20 }, (_, i) => create({ input: `${TEXTS[0]} ${i}` }))),
    models,
    model: await client.models.retrieve("demo"),
    wrong_model: await failure(create({ model: "nobody-knows", input: "a" })),
    wrong_dimensions: await failure(create({ input: "a", dimensions: 257 })),
    empty: await failure(create({ input: [] })),
  };
}

console.log(JSON.stringify({ texts: TEXTS, ollama: await withOllama(), openai: await withOpenAI() }));
