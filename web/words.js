// Markdown as it comes. The server renders each block once, when it has ended; it is put in place, and never moved.

const AT_ONCE = 10_000; // characters of one text: far fewer than take a busy server too long, or they stay plain
const AT_MOST = 40_000; // of one block that is being written, and below what the server takes
const TOGETHER = 20_000; // of all in one call: others wait for it
const PER_CALL = 100;
const KEPT = 1000;
const SHOWN = 4000; // of plain text in one element: all of it is laid out anew with each piece that comes
const PAUSE_MS = 200; // between two looks at a text that grows
const RETRY_MS = { first: 3000, longest: 60_000 };
const PASSING = [401, 408, 425, 429]; // statuses that tell of the server, or of who asks, and not of a text

export class Words {
  #states = new WeakMap(); // element -> {text, ended, at: how much of it is rendered, tail: the rest, left: pieces}
  #growing = new Set(); // elements whose text may have blocks that have ended
  #pieces = new Set(); // {element, node, text, source} of texts that have ended
  #whole = new Map(); // Markdown -> HTML
  #timer = 0;
  #busy = false;
  #failures = 0;

  /** `copy(text)` is called for the buttons at code, `grew()` when a text was put into the page later than it was shown. */
  constructor(api, copy, grew) {
    Object.assign(this, { api, copy, grew });
    for (const event of ["focus", "online"]) addEventListener(event, () => this.#failures && this.#later(0));
  }

  /** Shows a text. Until it has `ended`, more may come behind it. */
  show(element, text, ended) {
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    let state = this.#states.get(element);
    if (state?.text === text && state.ended === ended) return;
    if (!state || state.left !== undefined || !text.startsWith(state.text.slice(0, state.at))) {
      element.replaceChildren();
      this.#states.set(element, (state = { at: 0, tail: [] }));
    } else if (!text.startsWith(state.text)) dropTail(state);
    Object.assign(state, { text, ended });
    element.classList.remove("rendered");
    const isLong = text.length - state.at > AT_ONCE;
    if (!ended || !isLong) this.#tail(element, state);
    if (ended) this.#cut(element, state, isLong);
    else if (!state.refused && worthALook(text.slice(state.at))) this.#want(element);
  }

  /** Returns when all that is shown is rendered, or won't be soon. */
  async settled() {
    do
      await new Promise((done) => setTimeout(done, 100)); // what is long is cut first
    while (this.#busy || (this.#pieces.size && !this.#failures));
  }

  #want(element) {
    this.#growing.add(element);
    if (!this.#busy) this.#later(PAUSE_MS);
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
      while (this.#pieces.size || this.#growing.size) {
        const growing = [...this.#growing]; // those that come meanwhile have the next round
        for (const element of growing) await this.#asked(this.#look(element), () => this.#leave(element));
        const batch = this.#nearest();
        if (batch.length) await this.#asked(this.#put(batch), () => this.#part(batch));
      }
    } catch {
      this.#later(Math.min(RETRY_MS.first * 2 ** this.#failures++, RETRY_MS.longest));
    } finally {
      this.#busy = false;
    }
  }

  /** One call; when the server refuses the text, and would again, all others go on. */
  async #asked(call, refused) {
    try {
      await call;
      this.#failures = 0;
    } catch (error) {
      if (!(error.status < 500) || PASSING.includes(error.status)) throw error;
      refused();
    }
  }

  /** A text that has ended, in pieces. */
  async #cut(element, state, isLong) {
    const rest = state.text.slice(state.at);
    let pieces = rest ? [{ text: rest, source: rest }] : [];
    if (isLong) {
      const found = await import("./pieces.js").catch(() => null); // of a server that is gone
      if (found === null) return this.#tail(element, state);
      pieces = found.cut(rest, AT_ONCE);
    }
    if (this.#states.get(element) !== state || state.left !== undefined) return;
    this.#growing.delete(element);
    state.left = pieces.length;
    if (pieces.length !== 1 || state.tail.length !== 1) {
      dropTail(state);
      const place = pieces.length > 1 ? boxIn : (it) => it;
      state.tail = pieces.map(({ text }) => ({ node: this.#open(place(element), text) }));
    }
    pieces.forEach((piece, place) => this.#queue({ ...piece, element, node: state.tail[place].node }, state));
    element.classList.toggle("rendered", state.left === 0);
    if (isLong) this.grew();
  }

  #queue(piece, state) {
    const html = piece.html ?? this.#whole.get(piece.source);
    if (html !== undefined) return this.#place(piece, state, html);
    this.#pieces.add(piece);
    if (!this.#busy) this.#later(0);
  }

  /** What is put in place by the next call: what is in sight, then what is nearest to it. */
  #nearest() {
    const far = new Map(); // an element, or a piece of it that is in sight -> pixels
    const below = ({ top, bottom }) => Math.max(top - innerHeight, -bottom, 0);
    for (const piece of this.#pieces) {
      const { element, node } = piece;
      if (!node.isConnected) this.#pieces.delete(piece);
      else if (!far.has(element)) far.set(element, below(element.closest("li").getBoundingClientRect()));
      if (far.get(element) === 0) far.set(piece, below((node.closest(".piece") ?? node).getBoundingClientRect()));
    }
    const distance = (piece) => far.get(piece) ?? far.get(piece.element);
    const [first, ...others] = [...this.#pieces].sort((a, b) => distance(a) - distance(b));
    if (!first || first.alone) return first ? [first] : [];
    let size = first.source.length;
    const fits = ({ alone, source }) => !alone && (size += source.length) <= TOGETHER;
    return [first, ...others.slice(0, PER_CALL - 1).filter(fits)];
  }

  /** Of a text that the server refuses while it grows, nothing is rendered before it has ended. */
  #leave(element) {
    this.#growing.delete(element);
    this.#states.get(element).refused = true;
  }

  /** Of a call that was refused, each piece is sent once more, by itself; what is refused then can be read as it is. */
  #part(batch) {
    for (const piece of batch) {
      if (batch.length === 1) this.#pieces.delete(piece);
      piece.alone = true;
    }
  }

  async #put(batch) {
    const htmls = await this.api.render(batch.map(({ source }) => source));
    batch.forEach((piece, place) => {
      this.#pieces.delete(piece);
      if (this.#whole.size >= KEPT) this.#whole.clear();
      this.#whole.set(piece.source, htmls[place]);
      if (piece.node.isConnected) this.#place(piece, this.#states.get(piece.element), htmls[place]);
    });
  }

  #place({ element, node }, state, html) {
    node.replaceWith(this.#made(html));
    element.classList.toggle("rendered", --state.left === 0);
  }

  /** The blocks that have ended, of a text that grows. */
  async #look(element) {
    const state = this.#states.get(element);
    const { at } = state;
    if (!element.isConnected) return this.#growing.delete(element);
    const left = state.text.slice(at);
    let [chunk, html, done] = await this.#ended(left, AT_ONCE);
    if (done === 0 && left.length > AT_ONCE) [chunk, html, done] = await this.#ended(left, AT_MOST);
    if (done === 0 && left.length > AT_MOST) [html, done] = [await this.api.render([chunk]), chunk.length]; // one block
    this.#growing.delete(element);
    if (this.#states.get(element) !== state || state.left !== undefined) return;
    if (done) element.insertBefore(this.#made(html[0]), state.tail[0]?.node);
    state.at += done;
    this.#tail(element, state);
    if (done && worthALook(state.text.slice(state.at))) this.#growing.add(element);
  }

  /** Of a text's beginning, so much as has ended. */
  async #ended(text, most) {
    const chunk = text.length > most ? upToALine(text.slice(0, most)) : text;
    const { html, lines } = await this.api.json("POST", "render", { body: { texts: [chunk], open: true } });
    return [chunk, html, afterLines(chunk, lines[0])];
  }

  /** What is not rendered yet, as text, in elements that are full at a line's end. */
  #tail(element, { text, at, tail }) {
    const fence = FENCE.exec(text.slice(at, at + SHOWN));
    const start = at + (fence ? fence[0].length : 0);
    while (tail[0]?.to <= start) tail.shift().node.remove();
    if (tail[0]?.from < start) {
      tail[0].node.textContent = text.slice(start, tail[0].to);
      tail[0].from = start;
    }
    for (let from = start; (from = tail.at(-1)?.to ?? start) < text.length;) {
      let last = tail.at(-1);
      if (!last || (last.to - last.from > SHOWN && text[from - 1] === "\n"))
        tail.push((last = { node: this.#open(element, ""), from, to: from }));
      const end = text.indexOf("\n", Math.max(from, last.from + SHOWN)) + 1;
      last.to = end || text.length;
      last.node.firstChild.appendData(text.slice(from, last.to));
    }
    tail.forEach(({ node }, place) => (node.className = !fence ? "open" : place ? "open fence more" : "open fence"));
  }

  #open(element, text) {
    const node = Object.assign(document.createElement("div"), { dir: "auto", className: "open" });
    node.append(new Text(text));
    element.append(node);
    return node;
  }

  /** HTML of the server's: see api/page_markdown.py; and of pieces.js. */
  #made(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    for (const code of template.content.querySelectorAll("pre")) this.#frame(code);
    return template.content;
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

function dropTail(state) {
  state.tail.forEach(({ node }) => node.remove());
  state.tail = [];
}

/** What is far from what is read costs nothing, if it has a box. */
function boxIn(element) {
  return element.appendChild(Object.assign(document.createElement("div"), { className: "piece" }));
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
