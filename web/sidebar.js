// The list of conversations: by date, pinned ones first; search, rename, delete with a way back.

import { idOf } from "./kept.js";
import { prompt, say } from "./notes.js";

const PAGE = 50;
const UNDO_MS = 6000;
const UNDO_ALL_MS = 10_000;
const SENDING_MS = 10_000; // a question that is on its way for longer was not sent
const DAY_MS = 86_400_000;
const $ = (id) => document.getElementById(id);

/** Shows the list where there is no room for it beside the conversation, or hides it. */
export function drawer(shown) {
  document.body.classList.toggle("drawer", shown);
  $("menu").setAttribute("aria-expanded", shown);
}

export class Sidebar {
  current = null;
  kept = null;
  #sessions = [];
  #next = null;
  #reads = 0;
  #latest = null;
  #leaving = new Map(); // session_id -> how to delete it now
  #leavingAll = null;

  /** `changed(id)` and `left(id)` are told what was done. */
  constructor(api, { left, changed }) {
    Object.assign(this, { api, left, changed });
    let typing = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#run(this.refresh(true)), 150);
    });
    $("more").addEventListener("click", () => this.#run(this.#more()));
    new IntersectionObserver(([seen]) => seen.isIntersecting && this.#run(this.#more())).observe($("more"));
    $("menu").addEventListener("click", () => {
      drawer(true);
      $("close").focus();
    });
    for (const id of ["close", "shade"]) {
      $(id).addEventListener("click", () => {
        drawer(false);
        $("menu").focus();
      });
    }
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && document.body.classList.contains("drawer")) $("close").click();
    });
    addEventListener("pagehide", () => {
      this.#leaving.forEach((now) => now(true));
      this.#leavingAll?.(true);
    });
  }

  title(id) {
    return this.#sessions.find((session) => session.session_id === id)?.title;
  }

  /** Reads again as much of the list as is shown. */
  refresh(fromTop = false) {
    this.#latest = this.#read(fromTop);
    return this.#latest;
  }

  mark(id) {
    this.current = id;
    for (const item of this.#items()) {
      const link = item.querySelector("a");
      if (item.dataset.session === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** The conversation before or after the one that is open, as the list has them. */
  neighbour(step) {
    const ids = this.#items().map((item) => item.dataset.session);
    return ids[ids.indexOf(this.current) + step];
  }

  async renameOpen() {
    const title = this.title(this.current) ?? (await this.api.sessions.get(this.current)).title;
    await this.#rename({ session_id: this.current, title });
  }

  deleteOpen() {
    this.#remove({ session_id: this.current, title: this.title(this.current) ?? "The conversation" });
  }

  /** Hides all, and deletes them when the way back is closed. */
  async deleteAll() {
    const seconds = UNDO_ALL_MS / 1000;
    if ((await prompt(`Delete all of your conversations? There is a way back for ${seconds} seconds.`)) === null)
      return;
    this.#leavingAll = async (leaving = false) => {
      if (!this.#leavingAll) return;
      this.#leavingAll = null;
      await this.api.sessions.deleteAll({ keepalive: leaving });
      this.kept.forget();
      if (!leaving) await this.changed(null);
    };
    this.#draw();
    say("All conversations are deleted.", {
      ms: UNDO_ALL_MS,
      undo: () => {
        this.#leavingAll = null;
        this.#draw();
      },
      done: () => this.#run(this.#leavingAll?.()),
    });
    this.left(this.current);
  }

  async #read(fromTop) {
    const read = ++this.#reads;
    const limit = fromTop ? PAGE : Math.min(200, Math.max(PAGE, this.#sessions.length));
    let page = await this.api.sessions.list({ limit, q: searched() });
    // A search that ran out of time has found nothing yet: it goes on.
    while (read === this.#reads && searched() && !page.sessions.length && page.next !== null) {
      page = await this.api.sessions.list({ limit, cursor: page.next, q: searched() });
    }
    if (read !== this.#reads) return this.#latest;
    this.#sessions = page.sessions;
    this.#next = page.next;
    this.#draw();
  }

  async #more() {
    const cursor = this.#next;
    if (cursor === null) return;
    this.#next = null; // one at a time
    const read = this.#reads;
    const page = await this.api.sessions.list({ limit: PAGE, cursor, q: searched() });
    if (read !== this.#reads) return;
    const known = new Set(this.#sessions.map(({ session_id: id }) => id));
    this.#sessions.push(...page.sessions.filter(({ session_id: id }) => !known.has(id)));
    this.#next = page.next;
    this.#draw();
  }

  #items() {
    return [...$("list").querySelectorAll("li")];
  }

  #draw() {
    const shown = this.#leavingAll ? [] : this.#sessions.filter(({ session_id: id }) => !this.#leaving.has(id));
    const focused = document.activeElement?.closest("#list li");
    const [name, which] = [focused?.dataset.session, document.activeElement?.className];
    const groups = searched()
      ? [["", shown]]
      : [...this.#unsent(), ...this.#pinned(shown), ...byDate(shown, this.kept.all("pins"))];
    $("list").replaceChildren(...groups.flatMap(([title, sessions]) => this.#group(title, sessions)));
    const again = name && this.#items().find((item) => item.dataset.session === name);
    if (again) [...again.querySelectorAll("a, button")].find((one) => one.className === which)?.focus();
    $("none").hidden = groups.some(([, sessions]) => sessions.length);
    $("none").textContent = searched() ? "Nothing was found." : "No conversations yet.";
    $("more").hidden = this.#next === null || this.#leavingAll !== null;
    this.mark(this.current);
  }

  /** Conversations with a question that never reached the server. */
  #unsent() {
    if (this.#leavingAll) return [];
    const known = new Set(this.#sessions.map(({ session_id: id }) => id));
    const waiting = Object.entries(this.kept.all("unsent")).filter(
      ([name, { why, at }]) => !known.has(idOf(name)) && (why || Date.now() - at > SENDING_MS),
    );
    const sessions = waiting.map(([name, { chain, content, at }]) => {
      const title = typeof content === "string" ? content.slice(0, 60) : "A question";
      return { session_id: idOf(name), title, chain, updated_at: at, unsent: true };
    });
    return sessions.length ? [["Not sent", sessions]] : [];
  }

  #pinned(shown) {
    const pins = Object.entries(this.kept.all("pins")).filter(([name]) => !this.#leaving.has(idOf(name)));
    const sessions = pins.map(([name, session]) => shown.find(({ session_id: id }) => id === idOf(name)) ?? session);
    return sessions.length && !this.#leavingAll ? [["Pinned", sessions.reverse()]] : [];
  }

  #group(title, sessions) {
    if (!sessions.length) return [];
    const list = document.createElement("ul");
    list.append(...sessions.map((session) => this.#item(session)));
    return title
      ? [Object.assign(document.createElement("h2"), { className: "soft", textContent: title }), list]
      : [list];
  }

  #item(session) {
    const { session_id: id, title, chain, updated_at: at, hits } = session;
    const item = $("session").content.firstElementChild.cloneNode(true);
    const part = (name) => item.querySelector(name);
    item.dataset.session = id;
    const hit = searched() ? hits?.[0] : null;
    part("a").href = `#/${encodeURIComponent(id)}${hit ? `/${encodeURIComponent(hit.turn_id)}` : ""}`;
    part(".name").textContent = title;
    part(".when").textContent =
      hit?.snippet || `${chain} · ${new Date(at).toLocaleDateString([], { day: "numeric", month: "short" })}`;
    const pinned = this.kept.get("pins", id) !== undefined;
    const acts = {
      pin: [pinned ? "Unpin" : "Pin", () => this.#pin(session, !pinned)],
      rename: ["Rename", () => this.#run(this.#rename(session))],
      delete: ["Delete", () => this.#remove(session)],
    };
    for (const [name, [label, act]] of Object.entries(acts)) {
      part(`.${name}`).setAttribute("aria-label", `${label} ${title}`);
      part(`.${name}`).onclick = act;
      part(`.${name}`).hidden = !!session.unsent && name !== "delete";
    }
    item.classList.toggle("pinned", pinned);
    return item;
  }

  #pin(session, on) {
    this.kept.set("pins", session.session_id, on ? { ...session, hits: undefined } : null);
    this.#draw();
  }

  async #rename(session) {
    const title = await prompt("New title", session.title);
    if (!title?.trim()) return;
    await this.api.sessions.rename(session.session_id, title);
    await this.changed(session.session_id);
  }

  /** Hides it at once, and deletes it when the way back is closed: after a while, or with the page. */
  #remove({ session_id: id, title, unsent }) {
    const now = async (leaving = false) => {
      if (!this.#leaving.has(id)) return;
      try {
        if (!unsent) await this.api.sessions.delete(id, { keepalive: leaving });
        this.kept.forget(id);
      } finally {
        this.#leaving.delete(id);
        if (!leaving) await this.changed(id);
      }
    };
    this.#leaving.set(id, now);
    this.#draw();
    say(`“${title}” is deleted.`, {
      ms: UNDO_MS,
      undo: () => {
        this.#leaving.delete(id);
        this.#draw();
        this.#items()
          .find((item) => item.dataset.session === id)
          ?.querySelector("a")
          .focus();
      },
      done: () => this.#run(now()),
    });
    if (id === this.current) this.left(id);
  }

  async #run(work) {
    try {
      await work;
    } catch (error) {
      say(error.message);
    }
  }
}

const searched = () => $("search").value.trim();

/** The days of the conversations, in words: `[[title, sessions]]`, the newest first. */
function byDate(sessions, pins) {
  const today = new Date().setHours(0, 0, 0, 0);
  const groups = new Map();
  for (const session of sessions) {
    if (`#${session.session_id}` in pins) continue;
    const at = new Date(session.updated_at);
    const days = Math.ceil((today - at) / DAY_MS);
    const title =
      days <= 0
        ? "Today"
        : days === 1
          ? "Yesterday"
          : days <= 7
            ? "Last seven days"
            : at.toLocaleDateString([], { month: "long", year: "numeric" });
    if (!groups.has(title)) groups.set(title, []);
    groups.get(title).push(session);
  }
  return [...groups];
}
