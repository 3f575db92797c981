// The turns of a conversation on the screen.

import { textOf } from "./client.js";

const RENDER_AT_ONCE = 200_000; // characters, and below what the server takes
const RENDER_AT_MOST = 50_000;
const PER_CALL = 100;
const NEAR_PX = 80;
const MARKS = { interrupted: "Interrupted", failed: "Failed", unsent: "Not sent", running: "Writing…" };
const $ = (id) => document.getElementById(id);

/** What has come of the reply so far. */
export const answered = ({ output, text }) => (output.length ? textOf(output) : text ?? "");

export class View {
  #items = new Map(); // turn_id -> its element
  #html = new Map(); // Markdown -> HTML
  #waiting = new Map(); // Markdown -> the elements that want it
  #conversation = null;
  #frame = 0;

  /** `act(what, turn, text)` is called for each thing that a person does with a turn. */
  constructor(api, act) {
    Object.assign(this, { api, act });
  }

  /** Draws a conversation with the next frame, however often it changes before. */
  draw(conversation) {
    if (conversation !== this.#conversation) this.#open(conversation);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #open(conversation) {
    this.#conversation = conversation;
    this.#items.clear();
    $("turns").replaceChildren();
    $("log").scrollTop = 0;
  }

  #draw() {
    const { turns, older } = this.#conversation;
    const log = $("log");
    const fromEnd = log.scrollHeight - log.scrollTop;
    const first = $("turns").firstElementChild;
    const follows = !first || fromEnd - log.clientHeight < NEAR_PX;
    const items = turns.map((turn) => this.#item(turn));
    const gone = new Set(this.#items.values());
    items.forEach((item) => gone.delete(item));
    gone.forEach((item) => {
      this.#items.delete(item.dataset.turn);
      item.remove();
    });
    items.forEach((item, place) => {
      const now = $("turns").children[place];
      if (now !== item) $("turns").insertBefore(item, now ?? null);
    });
    $("older").hidden = older === null;
    $("empty").hidden = turns.length > 0;
    if (follows) log.scrollTop = log.scrollHeight;
    else if (first !== items[0]) log.scrollTop = log.scrollHeight - fromEnd; // older ones came in above
    this.#render();
  }

  #item(turn) {
    let item = this.#items.get(turn.turn_id);
    if (!item) {
      item = $("turn").content.firstElementChild.cloneNode(true);
      item.dataset.turn = turn.turn_id;
      this.#items.set(turn.turn_id, item);
    }
    const trouble = this.#conversation.troubles.get(turn.turn_id) ?? "";
    const state = [turn.status, turn.ended_at, turn.text?.length, trouble, this.#conversation.busy].join();
    if (item.dataset.state !== state) this.#fill(item, turn, trouble);
    item.dataset.state = state;
    return item;
  }

  #fill(item, turn, trouble) {
    const asked = plain(turn.input);
    const said = answered(turn);
    const part = (name) => item.querySelector(name);
    part(".you .words").replaceChildren(...turn.input.flatMap(parts));
    const words = part(".reply .words");
    part(".reply").hidden = !said && !turn.output.some(calls);
    this.#say(words, said, turn.status === "running");
    words.append(...turn.output.flatMap((message) => calls(message) ?? []));
    Object.assign(part(".trouble"), { textContent: trouble, hidden: !trouble });
    Object.assign(part(".mark"), { textContent: MARKS[turn.status] ?? "", className: `mark ${turn.status}` });
    part(".meta").replaceChildren(...meta(turn));
    const [running, busy, last] = [turn.status === "running", this.#conversation.busy, turn === this.#conversation.turns.at(-1)];
    const offers = { copy: said, retry: !busy && asked !== null && (last || turn.status === "complete"), change: !busy && asked !== null, branch: turn.started_at };
    for (const [name, offered] of Object.entries(offers)) {
      const button = part(`.${name}`);
      button.hidden = running || !offered;
      button.onclick = () => (name === "change" ? this.#edit(item, turn, asked) : this.act(name, turn, name === "copy" ? said : asked));
    }
    part(".retry").textContent = turn.status === "complete" ? "Regenerate" : "Try again";
  }

  /** Text as it comes; Markdown when all of it is there. */
  #say(element, text, running) {
    if (!running && this.#html.has(text)) {
      show(element, this.#html.get(text), this.act);
      return;
    }
    element.classList.remove("rendered");
    element.textContent = text;
    if (running || !text.trim() || text.length > RENDER_AT_MOST) return;
    if (!this.#waiting.has(text)) this.#waiting.set(text, new Set());
    this.#waiting.get(text).add(element);
  }

  async #render() {
    while (this.#waiting.size) {
      let size = 0;
      const texts = [...this.#waiting.keys()].slice(0, PER_CALL).filter((text) => (size += text.length) <= RENDER_AT_ONCE);
      const wanted = texts.map((text) => this.#waiting.get(text));
      texts.forEach((text) => this.#waiting.delete(text));
      let htmls;
      try {
        htmls = await this.api.render(texts);
      } catch {
        return; // it can be read as it is
      }
      const log = $("log");
      const follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
      htmls.forEach((html, place) => {
        if (this.#html.size > 1000) this.#html.clear();
        this.#html.set(texts[place], html);
        for (const element of wanted[place]) if (element.firstChild?.data === texts[place]) show(element, html, this.act);
      });
      if (follows) log.scrollTop = log.scrollHeight;
    }
  }

  #edit(item, turn, asked) {
    const form = item.querySelector(".edit");
    const [box, note] = [form.querySelector("textarea"), form.querySelector(".note")];
    const after = this.#conversation.turns.length - 1 - this.#conversation.turns.findIndex(({ turn_id: id }) => id === turn.turn_id);
    note.textContent = after ? `The ${after === 1 ? "turn" : `${after} turns`} after this will be forgotten. Branch first to keep them.` : "";
    box.value = asked;
    const close = () => {
      form.hidden = true;
      item.querySelector(".you").hidden = false;
      item.querySelector(".change").focus();
    };
    form.hidden = false;
    item.querySelector(".you").hidden = true;
    box.focus();
    form.querySelector(".cancel").onclick = close;
    form.onkeydown = (event) => event.key === "Escape" && close();
    form.onsubmit = (event) => {
      event.preventDefault();
      close();
      this.act("edit", turn, box.value);
    };
  }
}

/** Puts rendered Markdown in place, its code with buttons to copy it. What a reply holds besides stays behind it. */
function show(element, html, act) {
  const rest = [...element.children].filter((child) => child.classList.contains("part"));
  element.classList.add("rendered");
  element.innerHTML = html; // the server's: see api/page_markdown.py
  for (const code of element.querySelectorAll("pre")) {
    code.tabIndex = 0;
    const button = Object.assign(document.createElement("button"), { textContent: "Copy code", className: "quiet", type: "button" });
    button.onclick = () => act("copy", null, code.textContent);
    const box = Object.assign(document.createElement("div"), { className: "code" });
    code.replaceWith(box);
    box.append(button, code);
  }
  element.append(...rest);
}

/** A question that can be put again: the text of one message of a person that is nothing but text. */
function plain(messages) {
  const [message] = messages;
  return messages.length === 1 && message.type === "human" && typeof message.data.content === "string" ? message.data.content : null;
}

/** What a person said: text as it is, pictures that are in the message, and the kind of all else. */
function parts(message) {
  const { content } = message.data;
  return (Array.isArray(content) ? content : [content]).map((part) => {
    const text = typeof part === "string" ? part : part.text;
    if (typeof text === "string") return document.createTextNode(text);
    const url = part.image_url?.url ?? part.image_url;
    if (typeof url === "string" && /^data:image\/(png|jpeg|gif|webp)[;,]/.test(url)) {
      return Object.assign(new Image(), { src: url, alt: "Attached picture" });
    }
    return aside(`(${part.type ?? "something"})`);
  });
}

/** The tools that a reply calls; null if none. */
function calls(message) {
  const called = message.data?.tool_calls;
  return called?.length ? called.map(({ name, args }) => aside(`${name}(${JSON.stringify(args)})`)) : null;
}

function aside(text) {
  return Object.assign(document.createElement("code"), { textContent: text, className: "part" });
}

function meta({ chain, started_at: at, usage }) {
  const found = [];
  if (chain) found.push(chain);
  if (at) {
    const time = document.createElement("time");
    Object.assign(time, { dateTime: at, textContent: new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) });
    found.push(time);
  }
  if (usage) {
    const title = `${usage.input_tokens} tokens read, ${usage.output_tokens} tokens written`;
    found.push(Object.assign(document.createElement("span"), { textContent: `${usage.total_tokens} tokens`, title, className: "usage" }));
  }
  return found.flatMap((part, place) => (place ? [" · ", part] : [part]));
}
