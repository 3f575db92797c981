/**
 * A client of Recollect for browsers and Node (18 or later). It needs nothing else.
 *
 *   import { Recollect, textOf } from "http://localhost:8000/web/client.js";   // Node: a copy, as client.mjs
 *   const recollect = new Recollect({ url: "http://localhost:8000", key: "rk_…" });
 *   for await (const chunk of recollect.stream("chat", { input: "Hi!" }, { session: "physics" }))
 *     process.stdout.write(textOf(chunk));
 *   console.log(await recollect.sessions.turns("physics"));
 *
 * On a page of the server itself neither `url` nor `key` is needed: the browser's sign-in counts.
 */

/** The server refused, or failed. `status` is HTTP's, `detail` what the server said, `retryAfter` seconds or null. */
export class RecollectError extends Error {
  constructor(status, detail, retryAfter = null) {
    super(sentence(detail) || `The server answered with status ${status}.`);
    this.name = "RecollectError";
    this.status = status;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }
}

/** The server can't be reached, for longer than a stream is waited for. With a `turn`, the same call can be made again safely. */
export class ConnectionLost extends Error {
  constructor(cause) {
    super("The connection was lost.", { cause });
    this.name = "ConnectionLost";
  }
}

/** A name for a session or a turn that no other has. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The text of an output, or of one chunk of it: a string, a message, a list of them, or a dictionary around one. */
export function textOf(output) {
  if (output == null) return "";
  if (typeof output === "string") return output;
  if (Array.isArray(output)) return output.map(textOf).join("");
  if (typeof output.text === "string" && output.content === undefined) return output.text;
  if ("content" in output) return textOf(output.content);
  if ("data" in output) return textOf(output.data);
  if (typeof output.type === "string") return ""; // a part that is no text, such as an image
  return textOf(Object.values(output)[0]);
}

export class Recollect {
  /**
   * `url`: where the server is. `key`: an API key or JWT, if there is no cookie. `fetch`: another one than the platform's.
   * A stream that is lost is taken up again so many times in a row (`tries`), and one that is silent for `silentMs` is lost.
   */
  constructor({ url = new URL("../", import.meta.url).href, key = null, fetch = null, ...patience } = {}) {
    Object.assign(this, { tries: TRIES, silentMs: SILENT_MS }, patience);
    this.url = url.endsWith("/") ? url : `${url}/`;
    this.headers = key === null ? {} : { Authorization: `Bearer ${key}` };
    this.fetch = fetch ?? ((...args) => globalThis.fetch(...args));
    this.sessions = new Sessions(this);
  }

  /**
   * A chain's whole output. `session` names the conversation. With a `turn` (see `newId`) a call can be repeated: if it
   * was answered before, the same answer comes back. `versionOf` names a turn in whose place it stands. `config` is the rest of LangServe's config; `signal` aborts.
   * In the `background` the turn goes on by itself, and what comes back is `{session_id, turn_id}`: see `turn` and `watch`.
   * With `last`, it begins only if that is the conversation's last turn: 412 if it has moved on.
   */
  async invoke(chain, input, { session, turn, versionOf, last, background = false, config, signal } = {}) {
    const body = { input, config: withSession(config, { session, turn, versionOf }) };
    const how = { body, signal, ifMatch: last, prefer: background && "respond-async" };
    const answer = await this.json("POST", `${path(chain)}/invoke`, how);
    return background ? answer : answer.output;
  }

  /** One turn as the record has it: `{turn_id, status, input, output, …}`. `wait`: so many seconds for it to end, at most. */
  turn(session, turn, { wait, signal } = {}) {
    return this.json("GET", placeOf(session, turn), { query: { wait }, signal });
  }

  /**
   * A chain's output, in chunks, as it is said: an async iterator. A stream that is lost midway is taken up again where
   * it was lost, on whichever server answers. To leave the loop, or to abort the `signal`, is to leave the conversation:
   * `onDisconnect` says what becomes of the turn then: "grace", "stop" or "finish". Throws RecollectError for what the
   * server says went wrong, also midway, and ConnectionLost if the server can't be reached (any more).
   *
   * `lost(error)` is called when the stream is lost, and `lost(null)` when it goes on. `restarted()` tells that the next
   * chunk stands in the place of all before it, as it does for an output that can't be cut; without it, that is an error.
   */
  async *stream(chain, input, { session, turn = newId(), versionOf, last, onDisconnect, config, ...how } = {}) {
    const body = { input, config: withSession(config, { session, turn, versionOf, onDisconnect }) };
    const ask = (signal) => this.request("POST", `${path(chain)}/stream`, { body, signal, ifMatch: last });
    yield* heard(this, { session, turn, ask, ...how });
  }

  /**
   * What a turn says, wherever it was started: from its beginning, or from the event after the number `after` on. With
   * `live`, nothing if it does not run. `signal`, `lost`, `restarted`: see `stream`.
   */
  async *watch(session, turn, { after = -1, live, ...how } = {}) {
    const ask = (signal) => this.request("GET", `${placeOf(session, turn)}/stream`, { query: { after, live }, signal });
    yield* heard(this, { session, turn, ask, after, ...how });
  }

  /** The chains that answer here: `[{name, description, input_key, playground, input_schema}]`. */
  chains() {
    return this.json("GET", "chains");
  }

  /** The JSON schema of a chain's input. */
  inputSchema(chain) {
    return this.json("GET", `${path(chain)}/input_schema`);
  }

  /** Who is calling: `{user_id}`. */
  me() {
    return this.json("GET", "me");
  }

  /** Markdown as HTML that is safe to show: a list for a list. */
  async render(texts) {
    return (await this.json("POST", "render", { body: { texts } })).html;
  }

  /** One request; its JSON, or null when there is none. Throws RecollectError and ConnectionLost. */
  async json(method, where, options) {
    const response = await this.request(method, where, options);
    try {
      return response.status === 204 ? null : await response.json();
    } catch (error) {
      throw lost(error, options?.signal);
    }
  }

  /** One request; the response, if it is a good one. */
  async request(method, where, { body, query, signal, keepalive, ifMatch, prefer } = {}) {
    const url = new URL(where, this.url);
    const asked = Object.entries(query ?? {}).filter(([, value]) => value != null && value !== "");
    for (const [name, value] of asked) url.searchParams.set(name, value);
    const headers = { Accept: "application/json, text/event-stream", ...this.headers };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (prefer) headers.Prefer = prefer;
    if (ifMatch) headers["If-Match"] = `"${encodeURIComponent(ifMatch)}"`;
    let response;
    try {
      response = await this.fetch(url, { method, headers, signal, keepalive, body: body && JSON.stringify(body) });
    } catch (error) {
      throw lost(error, signal);
    }
    if (response.ok) return response;
    const { detail = null } = await response.json().catch(() => ({}));
    throw new RecollectError(response.status, detail, Number(response.headers.get("Retry-After")) || null);
  }
}

/** The caller's conversations. Messages are in the form of LangChain's `message_to_dict`: `{type, data: {content, …}}`. */
class Sessions {
  constructor(client) {
    this.client = client;
  }

  /** `{sessions: [{session_id, title, chain, created_at, updated_at, turns}], next}`, newest first; `q` searches. */
  list({ limit, cursor, q, signal } = {}) {
    return this.client.json("GET", "sessions", { query: { limit, cursor, q }, signal });
  }

  get(session) {
    return this.#one("GET", session);
  }

  /** `{turns: [{turn_id, status, chain, started_at, ended_at, input, output, usage}], next}`: the newest page. */
  turns(session, { limit, before, signal } = {}) {
    return this.#one("GET", session, "/turns", { query: { limit, before }, signal });
  }

  rename(session, title) {
    return this.#one("PATCH", session, "", { body: { title } });
  }

  /** Forgets one session. `keepalive`: even if the page is closed meanwhile. */
  delete(session, { keepalive } = {}) {
    return this.#one("DELETE", session, "", { keepalive });
  }

  deleteAll({ keepalive } = {}) {
    return this.client.json("DELETE", "sessions", { keepalive });
  }

  /** A new session of the name `as`, with the past up to and with that turn. */
  fork(session, turn, as = newId()) {
    return this.#one("POST", session, "/fork", { body: { session_id: as, turn_id: turn } });
  }

  /** The history ends before that turn. With `keep`, what followed can be chosen again. `last`: see `choose`. */
  rewind(session, turn, { keep = false, last } = {}) {
    return this.#one("POST", session, "/rewind", { body: { turn_id: turn, keep }, ifMatch: last });
  }

  /** Shows another version of a turn. `last`: the last turn that the caller has seen; 412 if there are others now. */
  choose(session, turn, { last } = {}) {
    return this.#one("POST", session, "/choose", { body: { turn_id: turn }, ifMatch: last });
  }

  /** Forgets one turn, for good. */
  deleteTurn(session, turn, { last, keepalive } = {}) {
    return this.#one("DELETE", session, `/turns/${path(turn)}`, { ifMatch: last, keepalive });
  }

  /** Puts on the record what the caller thinks of a reply: -1, 0 or 1, and why. */
  feedback(session, turn, score, comment = "") {
    return this.#one("PUT", session, `/turns/${path(turn)}/feedback`, { body: { score, comment } });
  }

  /** Stops the running turn, wherever it was started: `{stopped}`. Its stream then ends as if all had been said. */
  stop(session) {
    return this.#one("POST", session, "/stop");
  }

  /** Where a file of the whole session is: `format` is `json` or `markdown`. */
  exportUrl(session, format = "json") {
    return new URL(`sessions/${path(session)}/export?format=${format}`, this.client.url).href;
  }

  /** The whole session as `import` takes it. */
  export(session) {
    return this.#one("GET", session, "/export");
  }

  import(conversation) {
    return this.client.json("POST", "sessions/import", { body: conversation });
  }

  #one(method, session, rest = "", options = {}) {
    return this.client.json(method, `sessions/${path(session)}${rest}`, options);
  }
}

const path = encodeURIComponent;
const placeOf = (session, turn) => `sessions/${path(session)}/turns/${path(turn)}`;

/** What JSON leaves out, being undefined, is not sent. */
function withSession(config = {}, { session, turn, versionOf, onDisconnect }) {
  const named = { session_id: session, turn_id: turn, version_of: versionOf, on_disconnect: onDisconnect };
  return { ...config, configurable: { ...config.configurable, ...JSON.parse(JSON.stringify(named)) } };
}

/** Who aborts knows it: that error is passed on as it is. */
function lost(error, signal) {
  return signal?.aborted || error instanceof RecollectError ? error : new ConnectionLost(error);
}

function sentence(detail) {
  if (!Array.isArray(detail)) return detail;
  return detail.map(({ loc, msg }) => [(loc ?? []).slice(1).join("."), msg].filter(Boolean).join(": ")).join("; ");
}

const TRIES = 12;
const SILENT_MS = 35_000; // the server shows every 15 s that it is there
const PAUSE_MS = { first: 250, longest: 15_000 };
const PASSING = [429, 502, 503, 504];

/** The chunks of a turn, over as many connections as it takes. `ask` opens the first one. */
async function* heard(client, { session, turn, ask, after = -1, signal, lost = () => {}, restarted = null }) {
  let [last, startedAt, failures, missing] = [after, undefined, 0, false];
  let resumable = false; // once the server has answered, and as long as it numbers what it says
  const place = `${placeOf(session, turn)}/stream`;
  const again = (signal) => client.request("GET", place, { query: { after: last, started_at: startedAt }, signal });
  for (;;) {
    const line = new Line(client.silentMs, signal);
    try {
      const response = await (last > after ? again : ask)(line.signal);
      resumable = session !== undefined;
      if (response.status === 204) return;
      for await (const { event, data, id } of events(response.body, line)) {
        if (missing) lost(null);
        missing = false;
        if (event === "end") return;
        if (event === "error") throw told(data);
        const value = data && JSON.parse(data);
        if (event === "metadata") {
          startedAt = value.started_at ?? startedAt;
          if (value.restart && !restarted)
            throw new RecollectError(409, "What was said before can't be gone on with: ask for the turn again.");
          if (value.restart) restarted();
        } else failures = 0;
        if (event === "data" && !(id <= last)) {
          last = id ?? last;
          resumable &&= id !== undefined;
          yield value;
        }
      }
      throw new ConnectionLost();
    } catch (caught) {
      if (signal?.aborted) throw signal.reason;
      const error = line.dead ? new ConnectionLost(caught) : caught;
      if (!resumable || ++failures > client.tries || !(await isPassing(client, session, turn, error))) throw error;
      if (!missing) lost(error);
      missing = true;
      line.end();
      await pause(failures, error.retryAfter, signal);
    } finally {
      line.end();
    }
  }
}

/** Whether another try may go on with the turn. A server that ends tells those who watch a turn of another one to come back. */
async function isPassing(client, session, turn, error) {
  if (error instanceof ConnectionLost) return true;
  if (!(error instanceof RecollectError) || !PASSING.includes(error.status)) return false;
  if (!error.midway) return true;
  if (error.status !== 503) return false;
  const runs = ({ status }) => status === "running";
  return client.turn(session, turn).then(runs, (problem) => problem instanceof ConnectionLost);
}

function told(data) {
  const { status_code: status, message } = JSON.parse(data);
  return Object.assign(new RecollectError(status, message), { midway: true });
}

/** One connection: dead when nothing comes for too long, when the network has changed, and when nobody listens. */
class Line {
  dead = false;
  #over = new AbortController();
  #leave = () => this.#over.abort(this.outer.reason);
  #cut = () => {
    this.dead = true;
    this.#over.abort();
  };

  constructor(silentMs, outer) {
    Object.assign(this, { silentMs, outer, signal: this.#over.signal });
    if (outer?.aborted) this.#leave();
    outer?.addEventListener("abort", this.#leave);
    globalThis.addEventListener?.("online", this.#cut);
    this.lives();
  }

  lives() {
    clearTimeout(this.timer);
    this.timer = setTimeout(this.#cut, this.silentMs);
  }

  end() {
    clearTimeout(this.timer);
    this.outer?.removeEventListener("abort", this.#leave);
    globalThis.removeEventListener?.("online", this.#cut);
    this.#over.abort();
  }
}

/** Some time, longer with each failure and never the same for all; while the browser is offline, until it is not. */
function pause(failures, retryAfter, signal) {
  const longest = Math.min(PAUSE_MS.first * 2 ** (failures - 1), PAUSE_MS.longest);
  const ms = Math.max(longest * (0.5 + Math.random() / 2), (retryAfter ?? 0) * 1000);
  return new Promise((done, left) => {
    const go = () => {
      globalThis.removeEventListener?.("online", go);
      signal?.removeEventListener("abort", leave);
      clearTimeout(timer);
      done();
    };
    const leave = () => (go(), left(signal.reason));
    const timer = setTimeout(() => globalThis.navigator?.onLine !== false && go(), ms);
    globalThis.addEventListener?.("online", go);
    signal?.addEventListener("abort", leave);
  });
}

/** The server-sent events of a body. */
async function* events(body, line) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  line.signal.addEventListener("abort", () => reader.cancel().catch(() => {}));
  let rest = "";
  for (;;) {
    const read = await reader.read().catch((error) => Promise.reject(new ConnectionLost(error)));
    if (read.done) return;
    line.lives();
    const blocks = (rest + read.value).split(/\r\n\r\n|\n\n/);
    rest = blocks.pop();
    for (const block of blocks) yield* eventOf(block);
  }
}

/** The event of a block of lines; none if it is a comment. */
function* eventOf(block) {
  const found = { event: "message", data: [], id: undefined };
  for (const line of block.split(/\r\n|\n/)) {
    const [, field, value] = line.match(/^([^:]*): ?(.*)$/s) ?? [];
    if (field === "data") found.data.push(value);
    else if (field === "event") found.event = value;
    else if (field === "id") found.id = Number(value);
  }
  yield { ...found, data: found.data.join("\n") };
}
