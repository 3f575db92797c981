// The turns of a conversation on the screen, and where it is scrolled to.

import { fill, grow } from "./turn.js";
import { Words } from "./words.js";

const NEAR_PX = 80;
const DRAWN = 100; // turns, while the end is in sight: a frame takes a time that grows with all that is in the page
const MORE = 50;
const AT_ONCE = 50; // so many are removed in one go,
const ENOUGH = 30; // and so many drawn that no screen has room for more
const PAUSE_MS = 30;
const UNSEEN_MS = 250; // between two looks at a reply that is written far below what is read
const $ = (id) => document.getElementById(id);

export class View {
  #items = new Map(); // turn_id -> its element
  #drawn = new WeakMap(); // an element -> what it shows
  #conversation = null;
  #frame = 0;
  #all = []; // what was drawn last
  #skipped = 0; // so many of the oldest turns are not in the page
  #later = 0;
  #growth = 0;
  #most = DRAWN;
  #isFar = false; // whether the end is out of sight by more than the height of what is
  #isWhole = false; // whether all turns are in the page, wherever one reads
  #follows = true; // whether the end is in sight, and is to stay there
  #grown = new ResizeObserver(() => (this.#follows ? this.#toEnd() : this.#scrolled()));

  /** `act(what, turn, value)` is called for each thing that a person does with a turn. */
  constructor(api, act) {
    const copy = (text) => act("copy", null, text);
    Object.assign(this, { act, words: new Words(api, copy, () => this.#follows && this.#toEnd()) });
    $("log").addEventListener("scroll", () => this.#scrolled(), { passive: true });
    for (const id of ["turns", "log"]) this.#grown.observe($(id));
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

  /** Draws a piece of a reply that has come; not with each frame, if it stands far below what is read. */
  grew(conversation) {
    if (conversation !== this.#conversation || !this.#isFar) return this.draw(conversation);
    if (this.#later) return;
    this.#later = setTimeout(() => {
      this.#later = 0;
      this.draw(this.#conversation);
    }, UNSEEN_MS);
  }

  /** Goes to the end, and stays there. */
  follow() {
    this.#follows = true;
    this.#now();
    this.#toEnd();
  }

  /** Shows a turn of the conversation. */
  reveal(turnId) {
    this.#follows = false;
    const place = this.#conversation.turns.findIndex(({ turn_id: id }) => id === turnId);
    if (place >= 0) this.#skipped = Math.min(this.#skipped, place);
    this.#now();
    const item = this.#items.get(turnId);
    if (!item) return;
    item.scrollIntoView({ block: "start" });
    item.classList.add("found");
    item.addEventListener("animationend", () => item.classList.remove("found"), { once: true });
  }

  /** Shows more of the older turns that are loaded; false if all of them are in the page. */
  showMore() {
    if (this.#skipped === 0) return false;
    this.#follows = false;
    this.#skipped = Math.max(0, this.#skipped - MORE);
    this.#now();
    return true;
  }

  /** Has all turns that are loaded in the page, and rendered, while `use` runs. */
  async withAll(use) {
    this.#isWhole = true;
    try {
      this.#now();
      await this.words.settled();
      use();
    } finally {
      this.#isWhole = false;
      this.#now();
    }
  }

  /** Draws at once, and all of it. */
  #now() {
    if (this.#conversation === null) return;
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#all = [];
    this.#draw();
  }

  #open(conversation) {
    this.#conversation = conversation;
    this.#items.clear();
    this.#all = [];
    [this.#follows, this.#isFar, this.#skipped] = [true, false, 0];
    this.#grow(DRAWN);
    this.#renew();
    $("log").scrollTop = 0;
  }

  #toEnd() {
    const log = $("log");
    log.scrollTop = log.scrollHeight;
    this.#isFar = false;
    $("latest").hidden = true;
  }

  #scrolled() {
    const log = $("log");
    const below = log.scrollHeight - log.scrollTop - log.clientHeight;
    this.#follows = below < NEAR_PX;
    this.#isFar = below > log.clientHeight;
    $("latest").hidden = this.#follows;
  }

  #draw() {
    const { older, live, recorded, busy, busyElsewhere, troubles, leaving } = this.#conversation;
    const all = [recorded, live?.turn_id, busy, troubles.size, leaving.size, older];
    if (live && all.every((one, place) => one === this.#all[place])) {
      this.#item(live, true); // a piece of a reply: of a thousand turns, one changed
      return; // the end stays in sight by the observer of its size, which asks for no layout in between
    }
    this.#all = all;
    const log = $("log");
    const first = $("turns").firstElementChild;
    const turns = this.#shown();
    $("turns").classList.toggle("busy", busy || busyElsewhere);
    const items = turns.map((turn, place) => this.#item(turn, place === turns.length - 1));
    const grewAbove = first !== null && first !== items[0] && items.includes(first);
    const fromEnd = grewAbove ? log.scrollHeight - log.scrollTop : 0;
    this.#place(items);
    $("older").hidden = older === null && this.#skipped === 0;
    $("empty").hidden = turns.length > 0;
    if (this.#follows) this.#toEnd();
    else if (grewAbove) log.scrollTop = log.scrollHeight - fromEnd;
  }

  /** The turns that are in the page: all, or the newest while the end is in sight. */
  #shown() {
    const { turns } = this.#conversation;
    if (this.#isWhole) return turns;
    if (this.#follows && this.#items.size > DRAWN + AT_ONCE) this.#grow(ENOUGH);
    const most = Math.max(0, turns.length - (this.#follows ? this.#most : 1));
    this.#skipped = this.#follows ? most : Math.min(this.#skipped, most);
    return turns.slice(this.#skipped);
  }

  /** Of many turns few are drawn at first, and then a few more at a time. */
  #grow(most) {
    clearTimeout(this.#growth);
    this.#most = Math.min(most, DRAWN);
    if (most < DRAWN) this.#growth = setTimeout(() => (this.#grow(most + 10), this.#now()), PAUSE_MS);
  }

  /** Puts the elements into the page that are not there, and takes away those that are gone. */
  #place(items) {
    if (this.#items.size > items.length) this.#remove(new Set(items));
    const list = $("turns");
    let at = list.firstElementChild;
    for (const item of items) {
      if (item === at) at = at.nextElementSibling;
      else list.insertBefore(item, at);
    }
  }

  /** Takes all away but these. To remove a turn takes a tenth of a millisecond, and to lay out the others more than that. */
  #remove(kept) {
    const gone = [...this.#items].filter(([, item]) => !kept.has(item));
    for (const [id] of gone) this.#items.delete(id);
    if (gone.length > AT_ONCE) this.#renew();
    else gone.forEach(([, item]) => item.remove());
  }

  /** What stays goes over to a new list; the old one shows nothing, and is emptied bit by bit. */
  #renew() {
    const old = $("turns");
    const list = old.cloneNode(false);
    this.#grown.unobserve(old);
    old.removeAttribute("id");
    old.className = "gone";
    list.append(...this.#items.values());
    old.before(list);
    this.#grown.observe(list);
    const empty = () => {
      for (let left = AT_ONCE; left > 0; left--) old.lastChild?.remove();
      if (old.firstChild) setTimeout(empty);
      else old.remove();
    };
    setTimeout(empty);
  }

  #item(turn, last) {
    let item = this.#items.get(turn.turn_id);
    if (!item) {
      item = $("turn").content.firstElementChild.cloneNode(true);
      item.dataset.turn = turn.turn_id;
      this.#items.set(turn.turn_id, item);
    }
    const trouble = this.#conversation.troubles.get(turn.turn_id) ?? "";
    const state = [turn, turn.status, trouble, last, turn.live];
    const [was, size] = this.#drawn.get(item) ?? [];
    const same = was?.every((one, place) => one === state[place]);
    if (same && size === turn.live?.size) return item;
    this.#drawn.set(item, [state, turn.live?.size]);
    if (same) grow(item, turn, this.words);
    else fill(item, turn, { last, trouble, words: this.words, act: this.act });
    return item;
  }
}
