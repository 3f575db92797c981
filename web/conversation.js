// One conversation: what is on the record, and the turn that runs here. It knows nothing of how it is shown.

import { ConnectionLost, RecollectError, newId, textOf } from "./client.js";

const PAGE = 50;
const TRIES = 4;
const PAUSES_MS = [300, 700, 1500, 3000, 5000];

export class Conversation {
  recorded = [];
  older = null; // the cursor of the turns before those that are loaded
  live = null; // the turn that this page asked for, until the record has it
  troubles = new Map(); // turn_id -> why it failed, which the record does not tell
  stopping = false;
  known = false; // whether the server has this session
  #loads = 0;

  /** `changed(conversation)` is called after each change, `trouble(sentence or null)` while the server can't be reached. */
  constructor(api, id, { changed, trouble }) {
    Object.assign(this, { api, id, changed: () => changed(this), trouble });
  }

  /** All that is to be shown, oldest first. */
  get turns() {
    if (this.live === null) return this.recorded;
    return [...this.recorded.filter((turn) => turn.turn_id !== this.live.turn_id), this.live];
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
    this.changed();
  }

  async loadOlder() {
    const before = this.older;
    if (before === null) return;
    const page = await this.api.sessions.turns(this.id, { limit: PAGE, before });
    if (this.older !== before) return;
    this.recorded = [...page.turns, ...this.recorded];
    this.older = page.next;
    this.changed();
  }

  /** Puts a question. The same `turnId` again replaces a turn that failed, and never asks twice what was answered. */
  async ask(chain, input, text, turnId = newId()) {
    if (this.busy) return;
    const turn = { turn_id: turnId, status: "running", chain, input: [human(text)], output: [], text: "", usage: null };
    this.live = turn;
    this.troubles.delete(turnId);
    this.changed();
    const error = await this.#answer(turn, input);
    if (error !== null && !this.stopping) this.troubles.set(turnId, error.message);
    try {
      await this.load();
    } catch (failed) {
      this.troubles.set(turnId, failed.message);
    }
    const kept = this.recorded.some((one) => one.turn_id === turnId);
    this.live = kept ? null : { ...turn, status: "unsent" };
    this.stopping = false;
    this.changed();
  }

  /** Asks at the place of an earlier turn: it, and all after it, are forgotten. */
  async askAgain(turnId, chain, input, text) {
    if (this.live?.turn_id !== turnId) {
      await this.api.sessions.rewind(this.id, turnId);
      this.recorded = this.recorded.slice(0, this.recorded.findIndex((turn) => turn.turn_id === turnId));
    }
    this.live = null;
    await this.ask(chain, input, text);
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
    turn.text = "";
    for await (const chunk of this.api.stream(turn.chain, input, { session: this.id, turn: turn.turn_id })) {
      this.trouble(null);
      turn.text += textOf(chunk);
      this.changed();
    }
  }

  /** Waits until the server is back and does not run the turn any more: is it answered, or to be asked again? */
  async #endedMeanwhile(turn) {
    for (let round = 0; ; round++) {
      await pause(PAUSES_MS[Math.min(round, PAUSES_MS.length - 1)]);
      if (this.stopping) return true;
      try {
        const { turns } = await this.api.sessions.turns(this.id, { limit: 5 });
        const found = turns.find((one) => one.turn_id === turn.turn_id);
        if (found?.status !== "running") return found?.status === "complete";
      } catch (error) {
        if (error instanceof RecollectError && error.status < 500) return false;
      }
    }
  }
}

/** A message of the user, as the record has it. */
function human(text) {
  return { type: "human", data: { content: text } };
}

/** Some time, or until the network is back. */
function pause(ms) {
  return new Promise((done) => {
    setTimeout(done, ms);
    addEventListener("online", done, { once: true });
  });
}
