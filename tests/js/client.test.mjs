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
  assert.equal(
    await alice.invoke("chat", { input: "one" }, { session }),
    "You said: one. I have seen 1 user messages: one",
  );
  assert.match(textOf(await alice.invoke("tutor", { ability: "sums", input: "two" }, { session })), /one \| two$/);
});

test("a stream comes in chunks", async () => {
  const chunks = [];
  for await (const chunk of alice.stream(
    "tutor",
    { ability: "sums", input: "héllo 🙂 [[slow 0.05]]" },
    { session: newId() },
  ))
    chunks.push(textOf(chunk));
  assert.ok(chunks.length > 3);
  assert.match(chunks.join(""), /^You said: héllo 🙂/);
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
  const stream = alice.stream(
    "chat",
    { input: "[[slow 0.05]] [[n 1000]]" },
    { session, onDisconnect: "stop", signal: leaving.signal },
  );
  await assert.rejects(
    async () => {
      for await (const _ of stream) leaving.abort();
    },
    { name: "AbortError" },
  );
  await until(async () => (await alice.sessions.turns(session)).turns[0].status === "interrupted");
  assert.ok(textOf((await alice.sessions.turns(session)).turns[0].output));
});

test("to leave the loop is to leave the conversation", async () => {
  const session = newId();
  for await (const _ of alice.stream("chat", { input: "[[slow 0.05]] [[n 1000]]" }, { session, onDisconnect: "stop" }))
    break;
  await until(async () => (await alice.sessions.turns(session)).turns[0].status === "interrupted");
});

test("stop ends a stream as if all had been said", async () => {
  const session = newId();
  let text = "";
  for await (const chunk of alice.stream("chat", { input: "[[slow 0.05]] [[n 1000]]" }, { session })) {
    if (!text) assert.deepEqual(await alice.sessions.stop(session), { stopped: true });
    text += textOf(chunk);
  }
  assert.equal((await alice.sessions.turns(session)).turns[0].status, "interrupted");
});

test("what goes wrong has its status and a sentence", async () => {
  const session = newId();
  const refused = (status) => (error) =>
    error instanceof RecollectError && error.status === status && error.message.length > 10;
  await assert.rejects(all(alice.stream("chat", { input: "x" }, { session: "a/b" })), refused(422));
  await assert.rejects(all(alice.stream("chat", { input: "[[fail 400]]" }, { session })), refused(502));
  await assert.rejects(all(alice.stream("chat", { input: "[[error 3]]" }, { session })), refused(502));
  await assert.rejects(alice.sessions.get("nothing"), refused(404));
  await assert.rejects(alice.sessions.rename(session, ""), refused(422));
  await assert.rejects(new Recollect({ url, key: "rk_wrong" }).me(), refused(401));
});

test("what is wrong with the whole of a body is told without a place", async () => {
  const told = (detail) => ({ fetch: async () => Response.json({ detail }, { status: 422 }) });
  const whole = { loc: ["body"], msg: "Input should be a valid list" };
  const field = { loc: ["body", "input", "size"], msg: "Field required" };
  await assert.rejects(new Recollect({ url, ...told([whole, field]) }).me(), {
    message: "Input should be a valid list; input.size: Field required",
  });
});

test("a server that is not there is a lost connection", async () => {
  const nowhere = new Recollect({ url: "http://127.0.0.1:9", key: ALICE });
  await assert.rejects(nowhere.me(), ConnectionLost);
  await assert.rejects(all(nowhere.stream("chat", { input: "x" }, { session: "s" })), ConnectionLost);
});

/** A client whose connections go through `connection(response)`; `asked` are the methods and addresses of all requests. */
function over(connection, how = {}) {
  const asked = [];
  const fetching = async (url, options) => {
    asked.push(
      `${options.method} ${decodeURIComponent(url.pathname + url.search).replace(/started_at=.*/, "started_at")}`,
    );
    return connection(await fetch(url, options), asked.length);
  };
  return Object.assign(new Recollect({ url, key: ALICE, fetch: fetching, ...how }), { asked });
}

/** The response, broken off after so many events, however they are read together; or silent from there on. */
function cut(response, events, silent = false) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let read = "";
  const pull = async (out) => {
    if (!events--) {
      if (silent) return new Promise(() => {});
      await reader.cancel();
      return out.error(new TypeError("cut"));
    }
    let end;
    while ((end = read.indexOf("\r\n\r\n")) < 0) {
      const { value, done } = await reader.read();
      if (done) return out.close();
      read += value;
    }
    out.enqueue(new TextEncoder().encode(read.slice(0, end + 4)));
    read = read.slice(end + 4);
  };
  return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }), { status: response.status });
}

const STORY = { input: "[[slow 0.03]] [[n 12]]" };
const TOLD = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11";

test("a stream that breaks off is taken up again where it was, as often as it takes", async () => {
  const session = newId();
  const told = [];
  const client = over((response, number) => (number < 4 ? cut(response, 2) : response));
  const long = { input: "[[slow 0.1]] [[n 40]]" }; // there is more to come at each break, also on a slow machine
  assert.equal(
    await all(client.stream("chat", long, { session, turn: "t", lost: (error) => told.push(error?.name) })),
    [...Array(40).keys()].map((n) => `w${n}`).join(" "),
  );
  assert.equal(client.asked[0], "POST /chat/stream");
  assert.ok(
    client.asked.slice(1).every((one) => one.startsWith(`GET /sessions/${session}/turns/t/stream?after=`)),
    client.asked.join(),
  );
  assert.equal(client.asked.length, 4);
  assert.deepEqual(told.slice(0, 2), ["ConnectionLost", undefined]);
  assert.equal((await alice.turn(session, "t")).status, "complete");
});

test("a stream that breaks off before its first word is asked for again, and joins its turn", async () => {
  const session = newId();
  const client = over((response, number) => (number === 1 ? cut(response, 0) : response));
  assert.equal(await all(client.stream("chat", STORY, { session })), TOLD);
  assert.deepEqual(client.asked, ["POST /chat/stream", "POST /chat/stream"]);
  assert.equal((await alice.sessions.get(session)).turns, 1);
});

test("a silent connection is taken for dead", async () => {
  const client = over(
    (response, number) => {
      client.silentMs = 60_000; // for those that follow: on a slow machine they may be silent for a while
      return number === 1 ? cut(response, 1, true) : response;
    },
    { silentMs: 4000 },
  );
  assert.equal(await all(client.stream("chat", { input: "[[slow 0.01]] [[n 12]]" }, { session: newId() })), TOLD);
  assert.equal(client.asked.length, 2);
});

test("a server that is away for a moment is waited for, and one that stays away is a lost connection", async () => {
  const away = () => Response.json({ detail: "Away." }, { status: 503 });
  const client = over((response, number) => (number === 1 ? cut(response, 2) : number < 4 ? away() : response));
  assert.equal(await all(client.stream("chat", STORY, { session: newId() })), TOLD);
  const never = over((response, number) => (number === 1 ? cut(response, 2) : away()), { tries: 2 });
  await assert.rejects(all(never.stream("chat", STORY, { session: newId() })), { status: 503 });
  assert.equal(never.asked.length, 3);
});

test("what can't be gone on with comes whole, and is announced", async () => {
  const again =
    'event: metadata\r\ndata: {"restart": true}\r\n\r\nid: 9\r\nevent: data\r\ndata: "whole"\r\n\r\nevent: end\r\n\r\n';
  const broken = () => over((response, number) => (number === 1 ? cut(response, 2) : new Response(again)));
  let heard = "";
  for await (const chunk of broken().stream("chat", STORY, { session: newId(), restarted: () => (heard = "") }))
    heard += chunk;
  assert.equal(heard, "whole");
  await assert.rejects(all(broken().stream("chat", STORY, { session: newId() })), { status: 409 });
});

test("a turn in the background is watched by whoever comes, waited for, and told again", async () => {
  const endless = newId();
  await alice.invoke("chat", { input: "[[slow 0.05]] [[n 1000]]" }, { session: endless, turn: "t", background: true });
  assert.equal((await alice.sessions.get(endless)).running, "t");
  assert.deepEqual(await alice.sessions.stop(endless), { stopped: true });
  const session = newId();
  assert.deepEqual(await alice.invoke("chat", STORY, { session, turn: "t", background: true }), {
    session_id: session,
    turn_id: "t",
  });
  const [watched, later] = [all(alice.watch(session, "t")), all(alice.watch(session, "t", { after: 1, live: true }))];
  const turn = await alice.turn(session, "t", { wait: 30 });
  assert.equal(turn.status, "complete");
  assert.equal(textOf(turn.output), TOLD);
  assert.equal(await watched, TOLD);
  assert.ok(TOLD.endsWith(await later));
  assert.equal(await all(alice.watch(session, "t")), TOLD);
  assert.equal(await all(alice.watch(session, "t", { live: true })), "");
  await assert.rejects(all(alice.watch(session, "x")), { status: 404 });
});

test("where nothing is numbered, a stream that breaks off is a lost connection", async () => {
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
  for (const [turn, input] of [
    ["t1", "one"],
    ["t2", "two"],
  ])
    await bob.invoke("chat", { input }, { session, turn });
  assert.deepEqual(
    (await sessions.list({ q: "two" })).sessions.map((one) => one.session_id),
    [session],
  );
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
  const names = (await alice.chains()).map(({ name }) => name);
  assert.ok(names.includes("chat") && names.includes("tutor"), names.join());
  assert.ok((await alice.inputSchema("tutor")).properties.ability);
  assert.match((await alice.render(["*x*"]))[0], /<em>x<.em>/);
});

test("textOf finds the text in whatever a chain gives", () => {
  assert.equal(textOf("x"), "x");
  assert.equal(textOf(null), "");
  assert.equal(
    textOf({
      content: [{ type: "text", text: "a" }, { type: "image_url", image_url: "x" }, "b"],
      type: "AIMessageChunk",
    }),
    "ab",
  );
  assert.equal(textOf({ type: "ai", data: { content: "x" } }), "x");
  assert.equal(textOf({ output: [{ content: "x" }] }), "x");
});

async function until(condition) {
  for (const end = Date.now() + 10_000; !(await condition());) assert.ok(Date.now() < end, "waited 10 s");
}
