// Notes about the person that outlive conversations: shown, added, taken away.

import { say } from "./notes.js";

const $ = (id) => document.getElementById(id);

export class Memory {
  #notes = [];

  constructor(api, run) {
    Object.assign(this, { api, run });
    $("note-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = $("note").value.trim();
      if (text) run(this.#add(text));
    });
    $("notes-forget").addEventListener("click", () => run(this.#forget()));
  }

  async open() {
    this.#draw(await this.api.json("GET", "memory"));
    $("notes").showModal();
  }

  /** What was noted meanwhile, by a chain or in another tab, stays. */
  async #add(text) {
    const { notes } = await this.api.json("GET", "memory");
    await this.#put([...notes, { text }]);
    $("note").value = "";
    $("note").focus();
  }

  async #remove(id) {
    const { notes } = await this.api.json("GET", "memory");
    await this.#put(notes.filter((note) => note.note_id !== id));
  }

  async #put(notes) {
    this.#draw(await this.api.json("PUT", "memory", { body: { notes } }));
  }

  async #forget() {
    const before = this.#notes;
    await this.api.json("DELETE", "memory");
    this.#draw({ notes: [] });
    say("All notes are deleted.", { ms: 8000, undo: () => this.run(this.#put(before)) });
  }

  #draw({ notes }) {
    this.#notes = notes;
    $("notes-none").hidden = notes.length > 0;
    $("notes-forget").hidden = notes.length === 0;
    $("notes-list").replaceChildren(...notes.map((note) => this.#item(note)));
  }

  #item({ note_id: id, text, created_at: at }) {
    const item = document.createElement("li");
    const words = Object.assign(document.createElement("span"), {
      dir: "auto",
      textContent: text,
      title: new Date(at).toLocaleString(),
    });
    const remove = Object.assign(document.createElement("button"), {
      type: "button",
      className: "icon",
      textContent: "✕",
    });
    remove.setAttribute("aria-label", `Delete the note: ${text}`);
    remove.onclick = () => this.run(this.#remove(id));
    item.append(words, remove);
    return item;
  }
}
