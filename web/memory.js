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

  async #add(text) {
    await this.#change((notes) => [...notes, { text }]);
    $("note").value = "";
    $("note").focus();
  }

  #remove(id) {
    return this.#change((notes) => notes.filter((note) => note.note_id !== id));
  }

  /** What is noted meanwhile, by a chain or in another tab, stays: then the change is made to that. */
  async #change(changed) {
    for (let tries = 5; ; tries -= 1) {
      const shown = await this.api.request("GET", "memory");
      const { notes } = await shown.json();
      const ifMatch = shown.headers.get("ETag").replace(/^W\/|"/g, "");
      try {
        this.#draw(await this.api.json("PUT", "memory", { body: { notes: changed(notes) }, ifMatch }));
        return;
      } catch (error) {
        if (error.status !== 412 || tries === 1) throw error;
      }
    }
  }

  async #forget() {
    const before = this.#notes;
    await this.api.json("DELETE", "memory");
    this.#draw({ notes: [] });
    const undo = () => this.run(this.#change((notes) => [...before, ...notes]));
    say("All notes are deleted.", { ms: 8000, undo });
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
