// All that can be done, by its first letters: Ctrl+K or ⌘K. Conversations too.

import { isMac } from "./notes.js";

const PAUSE_MS = 150;
const FOUND = 8;
const $ = (id) => document.getElementById(id);

export class Palette {
  #shown = [];
  #at = 0;
  #searches = 0;
  #timer = 0;

  /** `commands`: `[{name, keys, run, when}]`; `find(text)` gives conversations; `open(id)` opens one. */
  constructor(commands, { find, open }) {
    Object.assign(this, { commands, find, open });
    $("wanted").addEventListener("input", () => this.look());
    $("wanted").addEventListener("keydown", (event) => this.#key(event));
    $("palette").addEventListener("click", (event) => event.target === $("palette") && $("palette").close());
  }

  /** Shows what there is for the letters in the box. */
  look() {
    const text = $("wanted").value.trim().toLowerCase();
    const fits = ({ name, when }) => name.toLowerCase().includes(text) && (when?.() ?? true);
    this.#draw(this.commands.filter(fits));
    clearTimeout(this.#timer);
    if (text) this.#timer = setTimeout(() => this.#search(text), PAUSE_MS);
  }

  async #search(text) {
    const search = ++this.#searches;
    const found = await this.find(text).catch(() => []);
    if (search !== this.#searches || $("wanted").value.trim().toLowerCase() !== text) return;
    const conversations = found
      .slice(0, FOUND)
      .map(({ session_id: id, title }) => ({ name: title, run: () => this.open(id) }));
    this.#draw([...this.#shown.filter((one) => this.commands.includes(one)), ...conversations], this.#at);
  }

  #draw(entries, at = 0) {
    this.#shown = entries;
    $("entries").replaceChildren(...entries.map((entry, place) => this.#item(entry, place)));
    this.#mark(at);
  }

  #item({ name, keys }, place) {
    const item = document.createElement("li");
    item.id = `entry-${place}`;
    item.setAttribute("role", "option");
    item.append(Object.assign(document.createElement("span"), { textContent: name, dir: "auto" }));
    if (keys) item.append(Object.assign(document.createElement("kbd"), { textContent: spelled(keys) }));
    item.onclick = () => this.#run(place);
    return item;
  }

  #mark(at) {
    this.#at = Math.max(0, Math.min(at, this.#shown.length - 1));
    [...$("entries").children].forEach((item, place) => item.setAttribute("aria-selected", place === this.#at));
    $("entries").children[this.#at]?.scrollIntoView({ block: "nearest" });
    if (this.#shown.length) $("wanted").setAttribute("aria-activedescendant", `entry-${this.#at}`);
    else $("wanted").removeAttribute("aria-activedescendant");
  }

  #key(event) {
    if (event.isComposing) return;
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) this.#mark(this.#at + steps[event.key]);
    else if (event.key === "Enter") this.#run(this.#at);
    else return;
    event.preventDefault();
  }

  #run(place) {
    $("palette").close();
    this.#shown[place]?.run();
  }
}

/** `mod+shift+o` as a person reads it. */
function spelled(keys) {
  const names = { mod: isMac ? "⌘" : "Ctrl", shift: isMac ? "⇧" : "Shift" };
  return keys
    .split("+")
    .map((one) => names[one] ?? one[0].toUpperCase() + one.slice(1))
    .join(isMac ? "" : "+");
}
