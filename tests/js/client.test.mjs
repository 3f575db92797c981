// web/client.js on Node, against a server that runs: see tests/test_client_js.py.

import assert from "node:assert/strict";
import { test } from "node:test";

const { CLIENT, URL: url, ALICE, BOB } = process.env;
const { ConnectionLost, Recollect, RecollectError, newId, textOf } = await import(CLIENT);
const alice = new Recollect({ url, key: ALICE });

async function all(stream) {
  let text = "";
  for await (const chunk of stream) text += textOf(chunk);
  return text;
}

test("invoke answers, and remembers", async () => {
  const session = newId();
  assert.equal(await alice.invoke("chat", { input: "one" }, { session }), "You said: one. I have seen 1 user messages: one");
  assert.match(textOf(await alice.invoke("tutor", { ability: "sums", input: "two" }, { session })), /one \| two$/);
});

test("a stream comes in chunks", async () => {
  const chunks = [];
  for await (const chunk of alice.stream("tutor", { ability: "sums", input: "héllo 🙂" }, { session: newId() })) chunks.push(textOf(chunk));
  assert.ok(chunks.length > 3);
  assert.match(chunks.join(""), /^You said: héllo 🙂\./);
});

test("the same turn again is answered from the record", async () => {
  const [session, turn] = [newId(), newId()];
  const first = await all(alice.stream("chat", { input: "once" }, { session, turn }));
  assert.equal(await all(alice.stream("chat", { input: "once" }, { session, turn })), first);
  assert.equal((await alice.sessions.get(session)).turns, 1);
});

test("a signal aborts a stream, and what was said is kept", async () => {
  const session = newId();
  const leaving = new AbortController();
  const stream = alice.stream("chat", { input: "[[slow 0.05]] a long story" }, { session, signal: leaving.signal });
  await assert.rejects(async () => {
    for await (const _ of stream) leaving.abort();
  }, { name: "AbortError" });
  await until(async () => (await alice.sessions.turns(session)).turns[0].status === "interrupted");
  assert.ok(textOf((await alice.sessions.turns(session)).turns[0].output));
});

test("to leave the loop is to leave the conversation", async () => {
  const session = newId();
  for await (const _ of alice.stream("chat", { input: "[[slow 0.05]] a long story" }, { session })) break;
  await until(async () => (await alice.sessions.turns(session)).turns[0].status === "interrupted");
});

test("stop ends a stream as if all had been said", async () => {
  const session = newId();
  let text = "";
  for await (const chunk of alice.stream("chat", { input: "[[slow 0.05]] a long story" }, { session })) {
    if (!text) assert.deepEqual(await alice.sessions.stop(session), { stopped: true });
    text += textOf(chunk);
  }
  assert.equal((await alice.sessions.turns(session)).turns[0].status, "interrupted");
});

test("what goes wrong has its status and a sentence", async () => {
  const session = newId();
  const refused = (status) => (error) => error instanceof RecollectError && error.status === status && error.message.length > 10;
  await assert.rejects(all(alice.stream("chat", { input: "x" }, { session: "a/b" })), refused(422));
  await assert.rejects(all(alice.stream("chat", { input: "[[fail 400]]" }, { session })), refused(502));
  await assert.rejects(all(alice.stream("chat", { input: "[[error 3]]" }, { session })), refused(502));
  await assert.rejects(alice.sessions.get("nothing"), refused(404));
  await assert.rejects(alice.sessions.rename(session, ""), refused(422));
  await assert.rejects(new Recollect({ url, key: "rk_wrong" }).me(), refused(401));
});

test("a server that is not there is a lost connection", async () => {
  const nowhere = new Recollect({ url: "http://127.0.0.1:9", key: ALICE });
  await assert.rejects(nowhere.me(), ConnectionLost);
  await assert.rejects(all(nowhere.stream("chat", { input: "x" }, { session: "s" })), ConnectionLost);
});

test("a stream that breaks off is a lost connection", async () => {
  const events = 'event: data\r\ndata: "on"\r\n\r\nevent: da';
  const broken = new Recollect({ url, fetch: async () => new Response(events) });
  const stream = broken.stream("chat", { input: "x" }, { session: "s" });
  assert.deepEqual(await stream.next(), { value: "on", done: false });
  await assert.rejects(stream.next(), ConnectionLost);
});

test("sessions: list, rename, fork, rewind, export, import, delete", async () => {
  const { sessions } = new Recollect({ url: `${url}/`, key: BOB });
  const bob = sessions.client;
  const session = "Übung 1?&#%";
  for (const [turn, input] of [["t1", "one"], ["t2", "two"]]) await bob.invoke("chat", { input }, { session, turn });
  assert.deepEqual((await sessions.list({ q: "two" })).sessions.map((one) => one.session_id), [session]);
  assert.equal((await sessions.turns(session, { limit: 1 })).turns[0].turn_id, "t2");
  assert.equal((await sessions.rename(session, "Title")).title, "Title");
  assert.equal((await sessions.fork(session, "t1", "fork")).turns, 1);
  assert.equal((await sessions.rewind(session, "t2")).turns, 1);
  const exported = await sessions.export(session);
  assert.equal((await sessions.import({ ...exported, session_id: "again" })).turns, 1);
  assert.equal((await fetch(sessions.exportUrl(session, "markdown"), { headers: bob.headers })).status, 200);
  assert.equal(await sessions.delete("fork"), null);
  await assert.rejects(alice.sessions.get("again"), { status: 404 });
  await sessions.deleteAll();
  assert.deepEqual(await sessions.list(), { sessions: [], next: null });
});

test("who am I, which chains are there, and how they are asked", async () => {
  assert.deepEqual(await alice.me(), { user_id: "alice" });
  assert.deepEqual((await alice.chains()).map(({ name }) => name), ["chat", "tutor"]);
  assert.ok((await alice.inputSchema("tutor")).properties.ability);
  assert.deepEqual(await alice.render(["*x*"]), ["<p><em>x</em></p>\n"]);
});

test("textOf finds the text in whatever a chain gives", () => {
  assert.equal(textOf("x"), "x");
  assert.equal(textOf(null), "");
  assert.equal(textOf({ content: [{ type: "text", text: "a" }, { type: "image_url", image_url: "x" }, "b"], type: "AIMessageChunk" }), "ab");
  assert.equal(textOf({ type: "ai", data: { content: "x" } }), "x");
  assert.equal(textOf({ output: [{ content: "x" }] }), "x");
});

async function until(condition) {
  for (const end = Date.now() + 10_000; !(await condition()); ) assert.ok(Date.now() < end, "waited 10 s");
}
