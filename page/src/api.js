// Requests to this server, the only one that the page asks. A key is asked for once and kept for the tab.

import { forTab } from "./kept.js";
import { t } from "./texts.js";

const KEPT = "q3e-key";

// What the server answered in place of a result, in its own words, which are English.
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// The server does not answer at all.
export class Gone extends Error {
  constructor() {
    super(t("gone"));
  }
}

// The page's parts that a request needs; main.js sets them.
export const around = { askForKey: async () => null, gone: () => {} };

// What a header can carry. The browser refuses to send any other key, as if the server did not answer.
const SENDABLE = /^[\x20-\x7e]+$/;

let asking = null;

export const hasKey = () => forTab.get(KEPT) !== null;

function headers(body) {
  const key = forTab.get(KEPT);
  return {
    ...(key ? { Authorization: `Bearer ${key}` } : {}),
    ...(body === undefined ? {} : { "Content-Type": "application/json" }),
  };
}

async function sent(path, body, signal) {
  const method = body === undefined ? "GET" : "POST";
  try {
    return await fetch(path, { method, headers: headers(body), body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    around.gone();
    throw new Gone();
  }
}

async function askedForKey(wasWrong) {
  const key = await around.askForKey(wasWrong);
  return key === null || SENDABLE.test(key) ? key : askedForKey(true);
}

async function answered(path, body, signal) {
  for (;;) {
    const tried = forTab.get(KEPT);
    const response = await sent(path, body, signal);
    if (response.status !== 401) return response;
    // Several requests may be refused at once, and the user is asked once.
    if (forTab.get(KEPT) === tried) {
      asking ??= askedForKey(tried !== null).finally(() => (asking = null));
      const key = await asking;
      if (key === null) throw new Error(t("key_needed"));
      forTab.put(KEPT, key);
    }
  }
}

async function checked(response) {
  if (response.ok) return response;
  const text = await response.text();
  let said = text;
  try {
    const { error } = JSON.parse(text);
    said = typeof error === "object" ? error.message : error;
  } catch {
    // It is no JSON, so the text itself is what was said.
  }
  throw new Refused(said || t("status", { status: response.status }), response.status);
}

// The JSON of an answer: to a POST of a body, else to a GET.
export const ask = async (path, body, signal) => (await checked(await answered(path, body, signal))).json();

export const askText = async (path, signal) => (await checked(await answered(path, undefined, signal))).text();

// Calls `line` with each object of an answer that comes in lines of JSON.
export async function askLines(path, body, line, signal) {
  const response = await checked(await answered(path, body, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const parts = (rest + (value ?? "")).split("\n");
    rest = done ? "" : parts.pop();
    for (const part of parts) if (part.trim()) line(JSON.parse(part));
    if (done) return;
  }
}

// Little-endian numbers of base64, as `Float32Array` or another array of numbers.
export function numbers(text, Type) {
  const raw = atob(text);
  const data = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) data[i] = raw.charCodeAt(i);
  return new Type(data.buffer);
}
