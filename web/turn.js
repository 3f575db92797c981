// One turn on the screen: the question, the parts of the reply, how it ended, and what can be done with it.

import { Parts, draw, make, shown } from "./parts.js";

const MARKS = { interrupted: "Interrupted", failed: "Failed", unsent: "Not sent", running: "Writing…" };
const ACTS = { up: "rate", down: "rate" };
const ENDS = {
  length: "Cut off: the model reached its limit.",
  content_filter: "Held back by the model's filter.",
  refusal: "The model refused.",
};

const WHEN = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" }); // to make one takes a millisecond

/** What a turn's reply is made of. */
export function partsOf(turn) {
  if (turn.live) return turn.live;
  return turn.parts ? Parts.of(turn.parts) : new Parts().add(turn.output);
}

/** What has come of the reply so far, as text. */
export const answered = (turn) => partsOf(turn).text;

/** A question that can be put again: what one message of a person holds. */
export function asked({ input }) {
  return input.length === 1 && input[0].type === "human" ? input[0].data.content : null;
}

/** The text of a question. */
export function textOfQuestion(content) {
  return typeof content === "string"
    ? content
    : content
        .filter(({ type }) => type === "text")
        .map(({ text }) => text)
        .join("\n");
}

/**
 * Fills the element of a turn. `act(what, turn, value)` is called for what a person does with it. What can't be done while
 * a reply is written is hidden by the list's class: all turns would be filled anew.
 */
export function fill(item, turn, { last, trouble, words, act }) {
  const part = (name) => item.querySelector(name);
  const parts = partsOf(turn);
  const running = turn.status === "running";
  part(".you .words").replaceChildren(...turn.input.flatMap(question));
  drawParts(part(".parts"), parts.list, words, running);
  part(".reply").hidden = parts.empty;
  const why = trouble || turn.error?.message || "";
  Object.assign(part(".trouble"), { textContent: why, hidden: !why });
  const mark = MARKS[turn.status] ?? ENDS[turn.finish_reason] ?? (parts.empty ? "The model said nothing." : "");
  Object.assign(part(".mark"), { textContent: mark, className: `mark ${turn.status}` });
  part(".meta").replaceChildren(...meta(turn));
  versions(part(".versions"), turn, act);
  recalled(part(".recalled"), turn.recalled);
  offer(item, turn, { last, running, said: parts.text, act });
}

/** Shows what has come to the reply of a turn that is filled in, and touches nothing else: a hundred times a second. */
export function grow(item, turn, words) {
  const parts = partsOf(turn);
  drawParts(item.querySelector(".parts"), parts.list, words, turn.status === "running");
  item.querySelector(".reply").hidden = parts.empty;
}

function drawParts(box, list, words, running) {
  list.forEach((one, place) => {
    const was = box.children[place];
    const element = draw(one, was, { words, ended: !running || place < list.length - 1 });
    if (element === was) return;
    if (was) was.replaceWith(element);
    else box.append(element);
  });
  while (box.children.length > list.length) box.lastChild.remove();
}

function offer(item, turn, { last, running, said, act }) {
  const content = asked(turn);
  const again = content !== null;
  const offers = {
    copy: said,
    retry: again && (last || turn.status === "complete"),
    change: again && typeof content === "string",
    branch: turn.started_at,
    up: turn.ended_at && said,
    down: turn.ended_at && said,
    remove: turn.ended_at,
  };
  const score = turn.feedback?.score ?? 0;
  const does = { copy: said, retry: content, up: score === 1 ? 0 : 1, down: score === -1 ? 0 : -1 };
  item.querySelector(".up").setAttribute("aria-pressed", score === 1);
  item.querySelector(".down").setAttribute("aria-pressed", score === -1);
  for (const [name, offered] of Object.entries(offers)) {
    const button = item.querySelector(`.${name}`);
    button.hidden = running || !offered;
    button.onclick = () =>
      name === "change" ? edit(item, turn, content, act) : act(ACTS[name] ?? name, turn, does[name]);
  }
  item.querySelector(".retry").textContent = turn.status === "complete" ? "Regenerate" : "Try again";
}

function edit(item, turn, content, act) {
  const form = item.querySelector(".edit");
  const box = form.querySelector("textarea");
  const after = item.parentNode.children.length - 1 - [...item.parentNode.children].indexOf(item);
  const note = form.querySelector(".note");
  note.textContent = `What is there now stays${after ? `, with the ${after === 1 ? "turn" : `${after} turns`} after it` : ""}: the arrows below lead back to it.`;
  box.value = content;
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
    if (item.closest(".busy")) return (note.textContent = "A reply is being written: ask again when it has ended.");
    close();
    act("edit", turn, box.value);
  };
}

/** The way to the other versions of a turn: ‹ 2 / 3 ›. */
function versions(box, { turn_id: id, versions: all = [] }, act) {
  box.hidden = all.length < 2;
  if (box.hidden) return;
  const at = all.indexOf(id);
  const [before, count, after] = box.children;
  count.textContent = `${at + 1} / ${all.length}`;
  for (const [button, to] of [
    [before, all[at - 1]],
    [after, all[at + 1]],
  ]) {
    button.disabled = to === undefined;
    button.onclick = () => act("choose", null, to);
  }
}

/** Which earlier turns the model was shown because they bear on the question. */
function recalled(box, found) {
  box.hidden = !found?.length;
  if (box.hidden) return;
  const links = found.map(({ session_id: id, turn_id: turn, at }) => {
    const link = Object.assign(make("a"), { href: `#/${encodeURIComponent(id)}/${encodeURIComponent(turn)}` });
    link.textContent = WHEN.format(new Date(at));
    return link;
  });
  box.querySelector("summary").textContent =
    found.length === 1 ? "1 earlier turn was recalled" : `${found.length} earlier turns were recalled`;
  box.querySelector("span").replaceChildren(...links.flatMap((link, place) => (place ? [" · ", link] : [link])));
}

/** What a person said: text as it is, and what else was sent with it. */
function question(message) {
  const { content } = message.data;
  return (Array.isArray(content) ? content : [content]).map((block) => {
    const text = typeof block === "string" ? block : block.text;
    return typeof text === "string" ? document.createTextNode(text) : shown(block);
  });
}

function meta({ chain, started_at: at, ended_at: end, usage }) {
  const found = [];
  if (chain) found.push(chain);
  if (at) {
    const time = make("time");
    Object.assign(time, { dateTime: at, textContent: WHEN.format(new Date(at)) });
    found.push(time);
    if (end) found.push(duration(new Date(end) - new Date(at)));
  }
  if (usage) {
    const title = `${usage.input_tokens} tokens read, ${usage.output_tokens} tokens written`;
    found.push(Object.assign(make("span", "usage"), { textContent: `${usage.total_tokens} tokens`, title }));
  }
  return found.flatMap((part, place) => (place ? [" · ", part] : [part]));
}

function duration(ms) {
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}
