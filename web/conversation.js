// One conversation: what is on the record, and the turn that runs here. It knows nothing of how it is shown.

import { ConnectionLost, RecollectError, newId } from "./client.js";
import { Parts } from "./parts.js";

const PAGE = 50;
const TRIES = 4;
const PAUSES_MS = [300, 700, 1500, 3000, 5000];

export class Conversation {
  recorded = [];
  older = null; // the cursor of the turns before those that are loaded
  live = null; // the turn that this page asked for, until the record has it
  troubles = new Map(); // turn_id -> why it failed, as it was told here
  stopping = false;
  leaving = new Set(); // turns that are deleted unless a person takes it back
  known = false; // whether the server has this session
  joins = false; // whether a turn is followed here that was asked for elsewhere
  #loads = 0;
  #joined = null; // what lets go of the turn that is followed

  /**
   * `changed(conversation)` is called after each change, but `grew(conversation)` when all that changed is that a piece
   * of the reply has come; `trouble(sentence or null)` while the server can't be reached, and `failed(error)` when what
   * was begun here by itself has failed.
   */
  constructor(api, kept, id, { changed, grew, trouble, failed }) {
    Object.assign(this, { api, kept, id, changed: () => changed(this), grew: () => grew(this), trouble, failed });
  }

  /** All that is to be shown, oldest first. */
  get turns() {
    const shown = this.leaving.size ? this.recorded.filter(({ turn_id: id }) => !this.leaving.has(id)) : this.recorded;
    if (this.live === null) return shown;
    const { turn_id: live, versionOf } = this.live;
    const place = shown.findIndex(({ turn_id: id }) => id === versionOf);
    return [...shown.slice(0, place < 0 ? undefined : place).filter(({ turn_id: id }) => id !== live), this.live];
  }

  get busy() {
    return this.live?.status === "running";
  }

  /** Whether a turn runs that another tab, or another device, asked for. */
  get busyElsewhere() {
    return !this.busy && this.recorded.at(-1)?.status === "running";
  }

  /** Reads the newest page, and puts it in the place of what was known of it. */
  async load() {
    const load = ++this.#loads;
    let page = { turns: [], next: null };
    try {
      page = await this.api.sessions.turns(this.id, { limit: PAGE });
      this.known = true;
    } catch (error) {
      if (error.status !== 404) throw error;
      this.known = false;
    }
    if (load !== this.#loads) return; // a later one was faster
    const overlap = this.recorded.findIndex((turn) => turn.turn_id === page.turns[0]?.turn_id);
    if (overlap <= 0) this.older = page.next;
    this.recorded = [...this.recorded.slice(0, Math.max(0, overlap)), ...page.turns];
    this.#recall();
    this.changed();
    this.#join();
  }

  /** Follows the turn that runs, if it was asked for elsewhere: before a reload, in another tab, on another device. */
  async #join() {
    if (!this.joins || this.live !== null || !this.busyElsewhere) return;
    const turn = (this.live = { ...this.recorded.at(-1), live: new Parts() });
    const { signal } = (this.#joined = new AbortController());
    this.changed();
    let error = null;
    try {
      await this.#follow(turn, this.api.watch(this.id, turn.turn_id, { signal, ...this.#over(turn) }));
    } catch (caught) {
      error = caught.midway ? null : caught; // how the turn has ended is on its record
    }
    this.trouble(null);
    if (error === null) await this.load().catch(this.failed);
    this.#joined = this.live = null;
    this.stopping = false;
    this.changed();
    if (error === null) this.#join();
    else if (!signal.aborted) this.failed(error);
  }

  /** Follows no turn any more that was asked for elsewhere. */
  leave() {
    this.joins = false;
    this.#joined?.abort();
  }

  /** Shows what a stream says of a turn. */
  async #follow(turn, stream) {
    for await (const chunk of stream) {
      this.trouble(null);
      turn.live.add(chunk);
      this.grew();
    }
  }

  /** How a stream is told here that goes over several connections. */
  #over(turn) {
    return {
      lost: (error) => this.trouble(error && `${error.message} Trying again…`),
      restarted: () => (turn.live = new Parts()),
    };
  }

  /** Brings a question back that was not sent: it is kept until the record has it. */
  #recall() {
    const unsent = this.kept.get("unsent", this.id);
    if (!unsent || this.busy) return;
    const { turn_id: turnId, content, why, ...rest } = unsent;
    if (this.#has(turnId)) {
      this.kept.set("unsent", this.id, null);
      this.live = null;
    } else if (this.live === null) {
      this.live = { turn_id: turnId, status: "unsent", input: [human(content)], output: [], usage: null, ...rest };
      if (why) this.troubles.set(turnId, why);
    }
  }

  #has(turnId) {
    return this.recorded.some((turn) => turn.turn_id === turnId);
  }

  /** Reads older pages until that turn is there; false if there is none. */
  async loadTo(turnId) {
    while (!this.#has(turnId) && this.older !== null) await this.loadOlder(200);
    return this.#has(turnId);
  }

  async loadAll() {
    while (this.older !== null) await this.loadOlder(200);
  }

  async loadOlder(limit = PAGE) {
    const before = this.older;
    if (before === null) return;
    const page = await this.api.sessions.turns(this.id, { limit, before });
    if (this.older !== before) return;
    this.recorded = [...page.turns, ...this.recorded];
    this.older = page.next;
    this.changed();
  }

  /** Puts a question. The same `turnId` again replaces a turn that failed, and never asks twice what was answered. */
  async ask(chain, input, content, turnId = newId(), versionOf = undefined) {
    if (this.busy) return;
    const turn = {
      turn_id: turnId,
      status: "running",
      chain,
      input: [human(content)],
      output: [],
      live: new Parts(),
      usage: null,
      asked: input,
      versionOf,
      last: this.#last,
    };
    this.live = turn;
    this.troubles.delete(turnId);
    if (!versionOf) this.#keep(turn);
    this.changed();
    const error = await this.#answer(turn, input);
    if (error !== null && !this.stopping) this.troubles.set(turnId, error.message);
    await this.#settle(turn, error);
    if (this.live !== null && error !== null) throw error; // it was not sent
  }

  /** The record takes the place of what was seen here; what it does not have was not sent, and is kept here. */
  async #settle(turn, error) {
    try {
      await this.load();
    } catch (failed) {
      this.troubles.set(turn.turn_id, failed.message);
    }
    const sent = this.#has(turn.turn_id) || turn.versionOf !== undefined;
    if (sent) this.kept.set("unsent", this.id, null);
    else this.#keep(turn, error?.message);
    this.live = sent ? null : { ...turn, status: "unsent" };
    this.stopping = false;
    this.changed();
    this.#join();
  }

  #keep({ turn_id: turnId, chain, asked, input }, why) {
    this.kept.set("unsent", this.id, {
      turn_id: turnId,
      chain,
      asked,
      content: input[0].data.content,
      why,
      at: Date.now(),
    });
  }

  /** Takes a question back that was not sent; gives what it said. */
  takeBack() {
    const { content } = this.live.input[0].data;
    this.live = null;
    this.kept.set("unsent", this.id, null);
    this.changed();
    return content;
  }

  /** Asks at the place of an earlier turn, which stays as another version. If no answer comes, that one is shown again. */
  async askAgain(turnId, chain, input, content) {
    const id = newId();
    await this.ask(chain, input, content, id, turnId);
    if (!this.#has(id)) throw new Error(`${this.troubles.get(id) ?? "No answer came."} What was there is shown again.`);
  }

  /** Shows another version of a turn, as it was seen here; if there is more by now, that is shown instead. */
  choose(turnId) {
    return this.#change(() => this.api.sessions.choose(this.id, turnId, { last: this.#last }));
  }

  /** Deletes a turn that is hidden already. */
  async remove(turnId, keepalive = false) {
    if (!this.leaving.has(turnId)) return;
    const last = this.#last;
    try {
      await this.#change(() => this.api.sessions.deleteTurn(this.id, turnId, { last, keepalive }));
    } finally {
      this.leaving.delete(turnId);
      this.changed();
    }
  }

  async rate(turnId, score, comment) {
    await this.#change(() => this.api.sessions.feedback(this.id, turnId, score, comment));
  }

  get #last() {
    return this.recorded.at(-1)?.turn_id;
  }

  async #change(change) {
    try {
      await change();
    } finally {
      await this.load();
    }
  }

  async stop() {
    this.stopping = this.busy;
    this.changed();
    try {
      await this.api.sessions.stop(this.id);
    } finally {
      if (!this.busy) await this.load();
    }
  }

  /** Sees the turn through to its end, over lost connections. Gives the error that it ended with, or null. */
  async #answer(turn, input) {
    let error = null;
    for (let tries = 1; tries <= TRIES; tries++) {
      try {
        await this.#hear(turn, input);
        error = null;
        break;
      } catch (caught) {
        error = caught;
      }
      const passing = error instanceof ConnectionLost || error.status === 503 || (tries > 1 && error.status === 409);
      if (!passing || this.stopping || tries === TRIES) break;
      this.trouble(`${error.message} Trying again…`);
      if (await this.#endedMeanwhile(turn)) {
        error = null;
        break;
      }
    }
    this.trouble(null);
    return error;
  }

  async #hear(turn, input) {
    turn.live = new Parts();
    const how = {
      session: this.id,
      turn: turn.turn_id,
      versionOf: turn.versionOf,
      last: turn.last,
      ...this.#over(turn),
    };
    await this.#follow(turn, this.api.stream(turn.chain, input, how));
  }

  /** Waits until the server is back and does not run the turn any more: is it answered, or to be asked again? */
  async #endedMeanwhile(turn) {
    for (let round = 0; ; round++) {
      await pause(PAUSES_MS[Math.min(round, PAUSES_MS.length - 1)]);
      if (this.stopping) return true;
      try {
        const { turns } = await this.api.sessions.turns(this.id, { limit: 5 });
        const found = turns.find((one) => one.turn_id === turn.turn_id);
        if (found) turn.last = undefined; // what it followed is settled
        if (found?.status !== "running") return found?.status === "complete";
      } catch (error) {
        if (error instanceof RecollectError && error.status < 500) return false;
      }
    }
  }
}

/** A message of the user, as the record has it. */
function human(content) {
  return { type: "human", data: { content } };
}

/** Some time, or until the network is back. */
function pause(ms) {
  return new Promise((done) => {
    setTimeout(done, ms);
    addEventListener("online", done, { once: true });
  });
}
