// RemoteRunnable of @langchain/core 0.3 on Node, against a server that runs: see tests/test_clients_js.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import { RemoteRunnable } from "@langchain/core/runnables/remote";

const { URL: url, ALICE, BOB } = process.env;

function remote(chain, key = ALICE) {
  return new RemoteRunnable({ url: `${url}/${chain}`, options: { headers: { Authorization: `Bearer ${key}` } } });
}

function session() {
  return { configurable: { session_id: `js ${crypto.randomUUID()}` } };
}

function seen(output) {
  const text = typeof output === "string" ? output : output.content;
  return text.split("user messages: ")[1];
}

const ask = (input) => ({ input, ability: "sums" });

test("invoke remembers, and keeps users apart", async () => {
  const config = session();
  const reply = await remote("tutor").invoke(ask("one"), config);
  assert.equal(reply.getType(), "ai");
  assert.equal(seen(await remote("chat").invoke(ask("two"), config)), "one | two");
  assert.equal(seen(await remote("chat", BOB).invoke(ask("three"), config)), "three");
});

test("a stream comes in chunks, and is remembered", async () => {
  const config = session();
  const chunks = [];
  const one = "one [[slow 0.05]]"; // words that came in one read come as one
  for await (const chunk of await remote("tutor").stream(ask(one), config)) chunks.push(chunk);
  assert.ok(chunks.length > 1);
  assert.equal(seen(chunks.map((chunk) => chunk.content).join("")), one);
  let text = "";
  for await (const chunk of await remote("chat").stream(ask("two"), config)) text += chunk;
  assert.equal(seen(text), `${one} | two`);
});

test("a batch keeps sessions apart", async () => {
  const [here, there] = [session(), session()];
  const outputs = await remote("chat").batch([ask("one"), ask("two"), ask("three")], [here, there, here]);
  assert.deepEqual(outputs.map(seen), ["one", "two", "one | three"]);
});

test("events and the log can be streamed", async () => {
  const config = session();
  const kinds = new Set();
  for await (const event of remote("chat").streamEvents(ask("one"), { ...config, version: "v2" }))
    kinds.add(event.event);
  assert.ok(kinds.has("on_chat_model_stream") && kinds.has("on_chain_end"), [...kinds].join());
  let patches = 0;
  for await (const patch of remote("chat").streamLog(ask("two"), config)) patches += patch.ops.length;
  assert.ok(patches > 5);
  assert.equal(seen(await remote("chat").invoke(ask("three"), config)), "one | two | three");
});

test("any text survives the way there and back", async () => {
  const text = "a\u2028b\u2029c\u0085 {input} \u0000 😀";
  let streamed = "";
  for await (const chunk of await remote("chat").stream(ask(text), session())) streamed += chunk;
  assert.equal(seen(streamed), text);
});

test("what is wrong is told", async () => {
  await assert.rejects(remote("chat").invoke(ask("one")), /session_id/);
  await assert.rejects(remote("chat", "rk_wrong").invoke(ask("one"), session()), /401|Bearer/);
  await assert.rejects(remote("chat").invoke(ask("[[fail 429]]"), session()), /too much to do|429/);
  await assert.rejects(async () => {
    for await (const _ of await remote("chat").stream(ask("[[cut 3]]"), session()));
  });
});
