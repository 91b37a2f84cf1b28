// Makes the page that the server sends from the sources in src/: one HTML file with its style and its script inside.
//
//   npm ci && npm run build
//
// `node build.mjs --check` exits with 1 where the committed file is not what the sources give.

import { readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const here = new URL(".", import.meta.url);
const target = new URL("../q3e_local/server/http/page.html", here);

async function bundled(entry) {
  const result = await build({
    entryPoints: [new URL(entry, here).pathname],
    bundle: true,
    minify: true,
    write: false,
    format: "iife",
    target: ["es2022"],
    charset: "utf8",
    legalComments: "none",
  });
  return result.outputFiles[0].text.trim();
}

const [template, style, script] = await Promise.all([
  readFile(new URL("src/index.html", here), "utf8"),
  bundled("src/style.css"),
  bundled("src/main.js"),
]);
// With functions, because `$` has a meaning in a replacement text.
const page = template.replace("/* STYLE */", () => style).replace("/* SCRIPT */", () => script);

if (process.argv.includes("--check")) {
  if ((await readFile(target, "utf8")) !== page) {
    console.error("page.html is not what its sources give; run: npm run build");
    process.exit(1);
  }
} else {
  await writeFile(target, page);
}
