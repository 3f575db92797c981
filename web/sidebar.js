// The list of conversations: search, rename, delete with a way back.

import { forgetInputs } from "./inputs.js";

const PAGE = 50;
const UNDO_MS = 6000;
const $ = (id) => document.getElementById(id);

export class Sidebar {
  current = null;
  #sessions = [];
  #next = null;
  #reads = 0;
  #latest = null;
  #leaving = new Map(); // session_id -> how to delete it now

  /** `prompt(question, text)` asks a person, `changed(id)` and `left(id)` are told what was done. */
  constructor(api, { prompt, say, left, changed }) {
    Object.assign(this, { api, prompt, say, left, changed });
    let typing = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#run(this.refresh(true)), 150);
    });
    $("more").addEventListener("click", () => this.#run(this.#more()));
    new IntersectionObserver(([seen]) => seen.isIntersecting && this.#run(this.#more())).observe($("more"));
    addEventListener("pagehide", () => this.#leaving.forEach((now) => now(true)));
  }

  title(id) {
    return this.#sessions.find((session) => session.session_id === id)?.title;
  }

  /** Reads again as much of the list as is shown. */
  refresh(fromTop = false) {
    this.#latest = this.#read(fromTop);
    return this.#latest;
  }

  async #read(fromTop) {
    const read = ++this.#reads;
    const limit = fromTop ? PAGE : Math.min(200, Math.max(PAGE, this.#sessions.length));
    const page = await this.api.sessions.list({ limit, q: $("search").value.trim() });
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
    const page = await this.api.sessions.list({ limit: PAGE, cursor, q: $("search").value.trim() });
    if (read !== this.#reads) return;
    const known = new Set(this.#sessions.map(({ session_id: id }) => id));
    this.#sessions.push(...page.sessions.filter(({ session_id: id }) => !known.has(id)));
    this.#next = page.next;
    this.#draw();
  }

  mark(id) {
    this.current = id;
    for (const item of $("list").children) {
      const link = item.querySelector("a");
      if (item.dataset.session === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  #draw() {
    const shown = this.#sessions.filter(({ session_id: id }) => !this.#leaving.has(id));
    const focused = document.activeElement?.closest("#list li");
    const [name, which] = [focused?.dataset.session, document.activeElement?.className];
    $("list").replaceChildren(...shown.map((session) => this.#item(session)));
    const again = name && [...$("list").children].find((item) => item.dataset.session === name);
    if (again) [...again.querySelectorAll("a, button")].find((one) => one.className === which)?.focus();
    const searching = $("search").value.trim() !== "";
    $("none").hidden = shown.length > 0;
    $("none").textContent = searching ? "Nothing was found." : "No conversations yet.";
    $("more").hidden = this.#next === null;
    this.mark(this.current);
  }

  #item(session) {
    const item = $("session").content.firstElementChild.cloneNode(true);
    const [link, rename, remove] = [item.querySelector("a"), item.querySelector(".rename"), item.querySelector(".delete")];
    item.dataset.session = session.session_id;
    link.href = `#/${encodeURIComponent(session.session_id)}`;
    link.querySelector(".name").textContent = session.title;
    link.querySelector(".when").textContent = `${session.chain} · ${new Date(session.updated_at).toLocaleDateString([], { day: "numeric", month: "short" })}`;
    rename.setAttribute("aria-label", `Rename ${session.title}`);
    remove.setAttribute("aria-label", `Delete ${session.title}`);
    rename.onclick = () => this.#run(this.#rename(session));
    remove.onclick = () => this.#remove(session);
    return item;
  }

  async #rename(session) {
    const title = await this.prompt("New title", session.title);
    if (!title?.trim()) return;
    await this.api.sessions.rename(session.session_id, title);
    await this.changed(session.session_id);
  }

  /** Hides it at once, and deletes it when the way back is closed: after a while, or with the page. */
  #remove({ session_id: id, title }) {
    const now = async (leaving = false) => {
      if (!this.#leaving.has(id)) return;
      try {
        await this.api.sessions.delete(id, { keepalive: leaving });
        forgetInputs(id);
      } finally {
        this.#leaving.delete(id);
        if (!leaving) await this.changed(id);
      }
    };
    this.#leaving.set(id, now);
    this.#draw();
    this.say(`“${title}” is deleted.`, {
      ms: UNDO_MS,
      undo: () => {
        this.#leaving.delete(id);
        this.#draw();
        [...$("list").children].find((item) => item.dataset.session === id)?.querySelector("a").focus();
      },
      done: () => this.#run(now()),
    });
    if (id === this.current) this.left(id);
  }

  async #run(work) {
    try {
      await work;
    } catch (error) {
      this.say(error.message);
    }
  }
}
