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

/** The server can't be reached, or a stream broke off. With a `turn`, the same call can be made again safely. */
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
  /** `url`: where the server is. `key`: an API key or JWT, if there is no cookie. `fetch`: another one than the platform's. */
  constructor({ url = new URL("../", import.meta.url).href, key = null, fetch = null } = {}) {
    this.url = url.endsWith("/") ? url : `${url}/`;
    this.headers = key === null ? {} : { Authorization: `Bearer ${key}` };
    this.fetch = fetch ?? ((...args) => globalThis.fetch(...args));
    this.sessions = new Sessions(this);
  }

  /**
   * A chain's whole output. `session` names the conversation. With a `turn` (see `newId`) a call can be repeated: if it
   * was answered before, the same answer comes back. `versionOf` names a turn in whose place it stands. `config` is the rest of LangServe's config; `signal` aborts.
   */
  async invoke(chain, input, { session, turn, versionOf, config, signal } = {}) {
    const body = { input, config: withSession(config, session, turn, versionOf) };
    return (await this.json("POST", `${path(chain)}/invoke`, { body, signal })).output;
  }

  /**
   * A chain's output, in chunks, as it is said: an async iterator. To leave the loop, or to abort the `signal`, is to
   * leave the conversation: the server then keeps what was said so far. Throws RecollectError for what the server
   * says went wrong, also midway, and ConnectionLost if the stream ends before its end.
   */
  async *stream(chain, input, { session, turn, versionOf, config, signal } = {}) {
    const leave = new AbortController();
    const either = signal ? AbortSignal.any([signal, leave.signal]) : leave.signal;
    const body = { input, config: withSession(config, session, turn, versionOf) };
    const response = await this.request("POST", `${path(chain)}/stream`, { body, signal: either });
    try {
      for await (const { event, data } of events(response.body, signal)) {
        if (event === "data") yield JSON.parse(data);
        else if (event === "end") return;
        else if (event === "error") {
          const { status_code: status, message } = JSON.parse(data);
          throw new RecollectError(status, message);
        }
      }
      throw new ConnectionLost();
    } finally {
      leave.abort();
    }
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

  /** The blocks of a growing Markdown text that nothing can change any more: `{html, lines}`, `lines` of the text. */
  async renderOpen(text) {
    const { html, lines } = await this.json("POST", "render", { body: { texts: [text], open: true } });
    return { html: html[0], lines: lines[0] };
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
  async request(method, where, { body, query, signal, keepalive, ifMatch } = {}) {
    const url = new URL(where, this.url);
    for (const [name, value] of Object.entries(query ?? {})) if (value != null && value !== "") url.searchParams.set(name, value);
    const headers = { Accept: "application/json, text/event-stream", ...this.headers };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (ifMatch) headers["If-Match"] = `"${encodeURIComponent(ifMatch)}"`;
    let response;
    try {
      response = await this.fetch(url, { method, headers, signal, keepalive, body: body && JSON.stringify(body) });
    } catch (error) {
      throw lost(error, signal);
    }
    if (response.ok) return response;
    const detail = await response.json().then((problem) => problem.detail, () => null);
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

  /** A conversation of another program, as `import` takes it: `{conversation, left_out}`. */
  convert(foreign) {
    return this.client.json("POST", "sessions/import/convert", { body: foreign });
  }

  #one(method, session, rest = "", options = {}) {
    return this.client.json(method, `sessions/${path(session)}${rest}`, options);
  }
}

const path = encodeURIComponent;

function withSession(config = {}, session, turn, versionOf) {
  const named = { ...config.configurable, session_id: session };
  if (versionOf !== undefined) named.version_of = versionOf;
  if (turn !== undefined) named.turn_id = turn;
  return { ...config, configurable: named };
}

/** Who aborts knows it: that error is passed on as it is. */
function lost(error, signal) {
  return signal?.aborted || error instanceof RecollectError ? error : new ConnectionLost(error);
}

function sentence(detail) {
  if (!Array.isArray(detail)) return detail;
  return detail.map(({ loc, msg }) => `${(loc ?? []).slice(1).join(".")}: ${msg}`).join("; ");
}

/** The server-sent events of a body. */
async function* events(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let read;
    try {
      read = await reader.read();
    } catch (error) {
      throw lost(error, signal);
    }
    if (read.done) return;
    const blocks = (rest + read.value).split(/\r\n\r\n|\n\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const found = { event: "message", data: [] };
      for (const line of block.split(/\r\n|\n/)) {
        const [, field, value] = line.match(/^([^:]*): ?(.*)$/s) ?? [];
        if (field === "data") found.data.push(value);
        else if (field === "event") found.event = value;
      }
      yield { event: found.event, data: found.data.join("\n") };
    }
  }
}
