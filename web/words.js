// Markdown as it comes. The server renders each block once, when it has ended; it is put in place, and never moved.

const AT_ONCE = 10_000; // characters of one text: far fewer than take a busy server too long, or they stay plain
const AT_MOST = 40_000; // of one block, and below what the server takes
const TOGETHER = 100_000; // of all in one call
const PER_CALL = 100;
const KEPT = 1000;
const PAUSE_MS = 200; // between two looks at a text that grows
const RETRY_MS = 3000;
const LATER = [408, 429]; // statuses that tell of a busy server, not of a text that it refuses

export class Words {
  #states = new WeakMap(); // element -> {text, ended, at: how much of it is rendered}
  #queue = new Set();
  #whole = new Map(); // Markdown -> HTML
  #timer = 0;
  #busy = false;

  /** `copy(text)` is called for the buttons at code. */
  constructor(api, copy) {
    Object.assign(this, { api, copy });
  }

  /** Shows a text. Until it has `ended`, more may come behind it. */
  show(element, text, ended) {
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    let state = this.#states.get(element);
    if (state?.text === text && state.ended === ended) return;
    if (!state || !text.startsWith(state.text.slice(0, state.at))) {
      element.replaceChildren();
      this.#states.set(element, (state = { at: 0 }));
    }
    Object.assign(state, { text, ended });
    element.classList.remove("rendered");
    if (ended && state.at === 0 && this.#whole.has(text)) this.#put(element, state, this.#whole.get(text), text.length);
    else this.#tail(element, state);
    if (ended ? state.at < text.length : worthALook(text.slice(state.at))) this.#want(element);
    else if (ended) element.classList.add("rendered");
  }

  #want(element) {
    this.#queue.add(element);
    if (!this.#busy) this.#later(this.#states.get(element).ended ? 0 : PAUSE_MS);
  }

  #later(ms) {
    if (ms === 0) clearTimeout(this.#timer);
    else if (this.#timer) return;
    this.#timer = setTimeout(() => this.#render(), ms);
  }

  async #render() {
    this.#timer = 0;
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#queue.size) {
        const batch = this.#batch();
        if (batch.length) await this.#renderWhole(batch);
        else await this.#renderStart(this.#queue.values().next().value);
      }
    } catch (error) {
      if (error.status < 500 && !LATER.includes(error.status)) this.#queue.clear(); // it can be read as it is
    } finally {
      this.#busy = false;
    }
    if (this.#queue.size) this.#later(RETRY_MS);
  }

  /** What can be rendered to its end, in one call. */
  #batch() {
    let size = 0;
    const batch = [];
    for (const element of this.#queue) {
      const { text, ended, at } = this.#states.get(element);
      const left = text.length - at;
      if (!ended || left > AT_ONCE) continue;
      if (batch.length === PER_CALL || (size += left) > TOGETHER) break;
      batch.push([element, text, text.slice(at)]);
    }
    return batch;
  }

  async #renderWhole(batch) {
    const htmls = await this.api.render(batch.map(([, , rest]) => rest));
    batch.forEach(([element]) => this.#queue.delete(element));
    batch.forEach(([element, text, rest], place) => {
      const state = this.#states.get(element);
      if (state.text !== text || state.at !== text.length - rest.length) return;
      if (rest === text) this.#keep(text, htmls[place]);
      this.#put(element, state, htmls[place], rest.length);
    });
  }

  #keep(text, html) {
    if (this.#whole.size >= KEPT) this.#whole.clear();
    this.#whole.set(text, html);
  }

  /** The blocks that have ended, of a text that grows, or of a long one. */
  async #renderStart(element) {
    const state = this.#states.get(element);
    const { at, ended } = state;
    const left = state.text.slice(at);
    let [chunk, html, done] = await this.#ended(left, AT_ONCE);
    if (done === 0 && left.length > AT_ONCE) [chunk, html, done] = await this.#ended(left, AT_MOST);
    if (done === 0 && (left.length > AT_MOST || (ended && left.length > AT_ONCE)))
      [html, done] = [await this.api.render([chunk]), chunk.length]; // one block, longer than is rendered at once
    this.#queue.delete(element);
    if (this.#states.get(element) !== state || state.at !== at || !state.text.startsWith(chunk, at)) return;
    if (done) this.#put(element, state, html[0], done);
    const rest = state.text.slice(state.at);
    if (state.ended ? rest : done && worthALook(rest)) this.#queue.add(element);
  }

  /** Of a text's beginning, so much as has ended. */
  async #ended(text, most) {
    const chunk = text.length > most ? upToALine(text.slice(0, most)) : text;
    const { html, lines } = await this.api.json("POST", "render", { body: { texts: [chunk], open: true } });
    return [chunk, html, afterLines(chunk, lines[0])];
  }

  #put(element, state, html, length) {
    const template = document.createElement("template");
    template.innerHTML = html; // the server's: see api/page_markdown.py
    for (const code of template.content.querySelectorAll("pre")) this.#frame(code);
    element.insertBefore(template.content, element.querySelector(":scope > .open"));
    state.at += length;
    this.#tail(element, state);
    element.classList.toggle("rendered", state.ended && state.at >= state.text.length);
  }

  /** What is not rendered yet, as text. */
  #tail(element, { text, at }) {
    let rest = text.slice(at);
    let open = element.querySelector(":scope > .open");
    if (!rest) return open?.remove();
    if (!open) element.append((open = Object.assign(document.createElement("div"), { dir: "auto" })));
    const fence = FENCE.exec(rest);
    open.className = fence ? "open fence" : "open";
    if (fence) rest = rest.slice(fence[0].length);
    const node = open.firstChild ?? open.appendChild(new Text());
    if (rest.startsWith(node.data)) node.appendData(rest.slice(node.length));
    else node.data = rest;
  }

  #frame(code) {
    code.tabIndex = 0; // it may be wider than the page, and is scrolled with the keyboard too
    const button = Object.assign(document.createElement("button"), {
      textContent: "Copy code",
      className: "quiet",
      type: "button",
    });
    button.onclick = () => this.copy(code.textContent);
    const head = Object.assign(document.createElement("div"), { className: "head" });
    head.append(
      Object.assign(document.createElement("span"), { className: "soft", textContent: code.dataset.language ?? "" }),
      button,
    );
    const box = Object.assign(document.createElement("div"), { className: "code" });
    code.replaceWith(box);
    box.append(head, code);
  }
}

const FENCE = /^\n* {0,3}(`{3,}|~{3,})[^\n]*(\n|$)/;
const NEW_BLOCK = /\n[ \t]*\n[^\n]*\S[^\n]*\n|\n {0,3}(#{1,6} |`{3}|~{3}|\$\$|\\\[)[^\n]*\n/;

/** Whether a block of this may have ended. */
function worthALook(rest) {
  const fence = FENCE.exec(rest);
  if (!fence) return NEW_BLOCK.test(rest);
  return new RegExp(`\\n {0,3}${fence[1]}+[ \\t]*\\n`).test(rest.slice(fence[0].length - 1));
}

function upToALine(text) {
  return text.slice(0, text.lastIndexOf("\n") + 1) || text;
}

function afterLines(text, lines) {
  let at = 0;
  for (let line = 0; line < lines; line++) {
    const end = text.indexOf("\n", at);
    if (end < 0) return text.length;
    at = end + 1;
  }
  return at;
}
