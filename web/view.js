// The turns of a conversation on the screen, and where it is scrolled to.

import { fill, grow } from "./turn.js";
import { Words } from "./words.js";

const NEAR_PX = 80;
const $ = (id) => document.getElementById(id);

export class View {
  #items = new Map(); // turn_id -> its element
  #drawn = new WeakMap(); // an element -> what it shows
  #conversation = null;
  #frame = 0;
  #all = []; // what was drawn last
  #follows = true; // whether the end is in sight, and is to stay there

  /** `act(what, turn, value)` is called for each thing that a person does with a turn. */
  constructor(api, act) {
    Object.assign(this, { act, words: new Words(api, (text) => act("copy", null, text)) });
    $("log").addEventListener("scroll", () => this.#scrolled(), { passive: true });
    const grown = new ResizeObserver(() => (this.#follows ? this.#toEnd() : this.#scrolled()));
    for (const id of ["turns", "log"]) grown.observe($(id));
    $("latest").addEventListener("click", () => this.follow());
  }

  /** Draws a conversation with the next frame, however often it changes before. */
  draw(conversation) {
    if (conversation !== this.#conversation) this.#open(conversation);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** Goes to the end, and stays there. */
  follow() {
    this.#follows = true;
    this.#toEnd();
  }

  /** Shows a turn that is on the screen; false if it is not. */
  reveal(turnId) {
    const item = this.#items.get(turnId);
    if (!item) return false;
    this.#follows = false;
    item.scrollIntoView({ block: "start" });
    item.classList.add("found");
    item.addEventListener("animationend", () => item.classList.remove("found"), { once: true });
    return true;
  }

  /** Draws at once what was to be drawn with the next frame. */
  now() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#draw();
  }

  #open(conversation) {
    this.#conversation = conversation;
    this.#items.clear();
    this.#all = [];
    this.#follows = true;
    $("turns").replaceChildren();
    $("log").scrollTop = 0;
  }

  #toEnd() {
    const log = $("log");
    log.scrollTop = log.scrollHeight;
    $("latest").hidden = true;
  }

  #scrolled() {
    const log = $("log");
    this.#follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
    $("latest").hidden = this.#follows;
  }

  #draw() {
    const { turns, older, live, recorded, busy, troubles, leaving } = this.#conversation;
    const all = [recorded, live?.turn_id, busy, troubles.size, leaving.size, older];
    if (live && all.every((one, place) => one === this.#all[place])) {
      this.#item(live, true); // a piece of a reply: of a thousand turns, one changed
      if (this.#follows) this.#toEnd();
      return;
    }
    this.#all = all;
    const log = $("log");
    const first = $("turns").firstElementChild;
    const items = turns.map((turn, place) => this.#item(turn, place === turns.length - 1));
    const grewAbove = first !== null && first !== items[0] && items.includes(first);
    const fromEnd = grewAbove ? log.scrollHeight - log.scrollTop : 0;
    this.#place(items);
    $("older").hidden = older === null;
    $("empty").hidden = turns.length > 0;
    if (this.#follows) this.#toEnd();
    else if (grewAbove) log.scrollTop = log.scrollHeight - fromEnd;
  }

  /** Puts the elements into the page that are not there, and takes away those that are gone. */
  #place(items) {
    const list = $("turns");
    if (this.#items.size > items.length) {
      const here = new Set(items);
      for (const [id, item] of this.#items) if (!here.has(item) && (item.remove(), true)) this.#items.delete(id);
    }
    let at = list.firstElementChild;
    for (const item of items) {
      if (item === at) at = at.nextElementSibling;
      else list.insertBefore(item, at);
    }
  }

  #item(turn, last) {
    let item = this.#items.get(turn.turn_id);
    if (!item) {
      item = $("turn").content.firstElementChild.cloneNode(true);
      item.dataset.turn = turn.turn_id;
      this.#items.set(turn.turn_id, item);
    }
    const { busy, troubles } = this.#conversation;
    const trouble = troubles.get(turn.turn_id) ?? "";
    const state = [turn, turn.status, trouble, busy, last, turn.live];
    const [was, size] = this.#drawn.get(item) ?? [];
    const same = was?.every((one, place) => one === state[place]);
    if (same && size === turn.live?.size) return item;
    this.#drawn.set(item, [state, turn.live?.size]);
    if (same) grow(item, turn, this.words);
    else fill(item, turn, { busy, last, trouble, words: this.words, act: this.act });
    return item;
  }
}
