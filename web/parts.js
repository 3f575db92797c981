// What a reply is made of: words, reasoning, tools with what they gave, pictures. From messages on the record and from
// chunks as they come alike.

/** Puts messages, or chunks of one, in the order in which they came: `[{kind, …}]`. */
export class Parts {
  list = [];
  size = 0; // changes with each addition
  #of = null; // the message that is being read

  add(output) {
    for (const message of messagesOf(output)) this.#message(message);
    this.size++;
    return this;
  }

  /** The parts as the server gives them. */
  static of(parts) {
    const made = new Parts();
    const sources = parts.filter(({ type }) => type === "source");
    for (const part of parts) made.#given(part);
    if (sources.length) made.list.push({ kind: "sources", sources });
    return made;
  }

  #given({ type, id, name, args, text, status }) {
    this.#of = {};
    if (type === "text" || type === "reasoning") this.#grow(type === "text" ? "words" : type, text);
    else if (type === "tool_call") this.#tool(id, { name, args });
    else if (type === "tool_result") this.#result({ tool_call_id: id, name, content: text, status });
  }

  get text() {
    return this.list
      .filter(({ kind }) => kind === "words")
      .map(({ text }) => text)
      .join("\n\n");
  }

  get empty() {
    return this.list.every(({ kind, text }) => kind === "words" && !text.trim());
  }

  #message({ type = "ai", content, tool_calls: calls, tool_call_chunks: pieces, additional_kwargs: extra, ...rest }) {
    this.#of = type === "AIMessageChunk" || type === "chunk" ? (rest.id ?? "") : {};
    if (type === "tool" || type === "ToolMessageChunk" || type === "function")
      return this.#result({ content, ...rest });
    const reasoning = extra?.reasoning_content ?? extra?.reasoning;
    if (typeof reasoning === "string") this.#grow("reasoning", reasoning);
    for (const block of Array.isArray(content) ? content : [content]) this.#block(block);
    if (extra?.refusal && !content) this.#grow("words", extra.refusal);
    if (pieces?.length) pieces.forEach((piece) => this.#piece(piece, rest.id));
    else calls?.forEach((call) => this.#tool(call.id, call));
  }

  #block(block) {
    if (typeof block === "string") return this.#grow("words", block);
    if (block == null) return;
    const thought = block.reasoning ?? block.thinking ?? summary(block);
    if (["reasoning", "thinking"].includes(block.type)) return this.#grow("reasoning", thought ?? "");
    if (typeof block.text === "string") return this.#grow("words", block.text);
    if (/tool|function_call/.test(block.type ?? "")) return; // the message's tool_calls say it too
    this.list.push({ kind: "other", block });
  }

  #grow(kind, text) {
    if (!text) return;
    const last = this.list.at(-1);
    if (last?.kind === kind && last.of === this.#of) last.text += text;
    else this.list.push({ kind, text, of: this.#of });
  }

  /** A piece of a tool call: the name comes first, then its arguments, as growing JSON. */
  #piece({ id, name, args, index }, message) {
    const key = `${message ?? ""}/${index ?? 0}`;
    const open = this.list.findLast((part) => part.key === key && (!id || !part.id || part.id === id));
    const part = open ?? this.#tool(id, { name: "", args: "" });
    part.key = key;
    part.id ??= id;
    part.name += name ?? "";
    part.args += args ?? "";
  }

  #tool(id, { name, args }) {
    const known = id && this.list.find((part) => part.kind === "tool" && part.id === id);
    if (known) return Object.assign(known, { name, args });
    const part = { kind: "tool", id, name, args, result: null };
    this.list.push(part);
    return part;
  }

  #result({ content, tool_call_id: id, name, status }) {
    const part =
      this.list.find((one) => one.kind === "tool" && one.id === id) ??
      this.#tool(id, { name: name ?? "tool", args: {} });
    part.result = (part.result ?? "") + (typeof content === "string" ? content : JSON.stringify(content));
    part.failed = status === "error";
  }
}

/** The messages in an output: a string, a message in either form, a list of them, or a dictionary around one. */
function messagesOf(output) {
  if (output == null) return [];
  if (typeof output === "string") return [{ type: "chunk", content: output }];
  if (Array.isArray(output)) return output.flatMap(messagesOf);
  if ("content" in output) return [output];
  if (output.data && typeof output.type === "string") return [{ type: output.type, ...output.data }];
  return messagesOf(output.messages ?? Object.values(output)[0]);
}

function summary({ summary: parts }) {
  return Array.isArray(parts) ? parts.map(({ text }) => text).join("\n") : undefined;
}

/** The element of a part; `was` is the one that showed it before, if there is one. */
export function draw(part, was, { words, ended }) {
  const element = was?.dataset.kind === part.kind ? was : (MAKE[part.kind]?.() ?? make("div", "words"));
  element.dataset.kind = part.kind;
  if (part.kind === "words") words.show(element, part.text, ended);
  else FILL[part.kind](element, part, ended);
  return element;
}

const MAKE = { reasoning: step, tool: step, sources: () => make("ol", "sources"), other: () => make("div", "other") };

const FILL = {
  reasoning(element, { text }, ended) {
    title(element, ended ? "Reasoning" : "Thinking…");
    body(element, [["", text]]);
  },
  tool(element, { name, args, result, failed }, ended) {
    const state = failed ? "failed" : result !== null ? "done" : ended ? "called" : "running…";
    title(element, name || "Tool", state);
    element.classList.toggle("failed", !!failed);
    body(element, [
      ["Asked", typeof args === "string" ? args : JSON.stringify(args, null, 2)],
      ["Answered", result],
    ]);
  },
  sources(element, { sources }) {
    element.replaceChildren(...sources.map(source));
  },
  other(element, { block }) {
    if (!element.firstChild) element.append(shown(block));
  },
};

function step() {
  const element = make("details", "step");
  element.append(make("summary"), make("div", "inside"));
  return element;
}

function title(element, name, state = "") {
  const line = element.firstChild;
  const text = state ? `${name} · ${state}` : name;
  if (line.textContent !== text) line.textContent = text;
}

function body(element, texts) {
  const said = texts.filter(([, text]) => text);
  const inside = element.lastChild;
  while (inside.children.length > said.length) inside.lastChild.remove();
  said.forEach(([label, text], place) => {
    const box = inside.children[place] ?? inside.appendChild(labelled());
    if (box.firstChild.textContent !== label) box.firstChild.textContent = label;
    if (box.lastChild.textContent !== text) box.lastChild.textContent = text;
  });
}

function labelled() {
  const box = make("div");
  box.append(make("p", "soft"), Object.assign(make("pre"), { tabIndex: 0, dir: "auto" }));
  return box;
}

/** A document that an answer was drawn from: its name, a link if it has one, and what it says. */
function source({ metadata = {}, text, title: name, url, ...rest }) {
  const where = url ?? metadata.url ?? metadata.source ?? rest.source ?? "";
  const item = make("li");
  const label = String(name ?? metadata.title ?? (where || "Source"));
  item.append(
    /^https?:/.test(where)
      ? Object.assign(make("a"), {
          href: where,
          target: "_blank",
          rel: "noopener noreferrer nofollow",
          textContent: label,
        })
      : label,
  );
  if (text) {
    const more = step();
    title(more, "What it says");
    body(more, [["", String(text).slice(0, 5000)]]);
    item.append(more);
  }
  return item;
}

/** What is no text: pictures that are in the message, and the kind of all else. */
export function shown(block) {
  const url = pictureOf(block);
  if (url) return Object.assign(new Image(), { src: url, alt: "Attached picture" });
  return Object.assign(make("code", "part"), { textContent: `(${block.type ?? "something"})` });
}

function pictureOf(block) {
  const data = block.base64 ?? block.data;
  const url =
    block.image_url?.url ??
    block.image_url ??
    (data && block.type === "image" ? `data:${block.mime_type};base64,${data}` : null);
  return typeof url === "string" && /^data:image\/(png|jpeg|gif|webp)[;,]/.test(url) ? url : null;
}

export function make(tag, className = "") {
  return Object.assign(document.createElement(tag), { className });
}
