// The page: which conversation is open, and what a person does with it.

import { Recollect, newId } from "./client.js";
import { Conversation } from "./conversation.js";
import { Inputs, forgetInputs } from "./inputs.js";
import { Sidebar } from "./sidebar.js";
import { View, answered } from "./view.js";

const POLL_MS = 1500;
const $ = (id) => document.getElementById(id);
const api = new Recollect();
const tabs = new BroadcastChannel("recollect");
const running = new Map(); // conversations with a turn that runs here, also while another one is open
const inputs = new Inputs(api);
const view = new View(api, (what, turn, text) => run(actions[what](turn, text)));
const sidebar = new Sidebar(api, { prompt, say, left: () => (location.hash = place(null)), changed: changedHere });
let open = null;
let poll = 0;

// The conversation that is open.

function conversation(id) {
  return new Conversation(api, id, { changed, trouble: (sentence) => id === open?.id && banner(sentence) });
}

/** The place of a conversation in this page's address. */
const place = (id) => `#/${id === null ? "" : encodeURIComponent(id)}`;

function idFromAddress() {
  try {
    return decodeURIComponent(location.hash.match(/^#\/(.+)/)?.[1] ?? "") || null;
  } catch {
    return null;
  }
}

async function openFromAddress() {
  const id = idFromAddress();
  if (id !== null && id === open?.id) return;
  open = id === null ? conversation(newId()) : running.get(id) ?? conversation(id);
  banner(null);
  drawer(false);
  sidebar.mark(open.id);
  const opened = open;
  changed(open);
  if (id !== null && !open.busy) await open.load();
  if (open !== opened) return;
  await inputs.open(id, open.turns.at(-1)?.chain);
  if (matchMedia("(min-width: 48rem)").matches) $("text").focus();
}

function changed(conversation) {
  if (conversation !== open) return;
  view.draw(open);
  const busy = open.busy || open.busyElsewhere;
  $("stop").hidden = !busy;
  $("stop").disabled = open.stopping;
  $("send").hidden = busy;
  $("export").hidden = !open.known;
  $("as-json").href = api.sessions.exportUrl(open.id, "json");
  $("as-markdown").href = api.sessions.exportUrl(open.id, "markdown");
  title();
  clearTimeout(poll);
  if (open.busyElsewhere) poll = setTimeout(() => run(open.load()), POLL_MS);
}

function title() {
  const name = sidebar.title(open.id) ?? (open.known ? "Conversation" : "New conversation");
  if ($("title").textContent !== name) $("title").textContent = name;
  document.title = open.known ? `\u2068${name}\u2069 · Recollect` : "Recollect";
}

/** Puts a question in the open conversation with `put`, and sees to all that follows from it. */
async function ask(chain, text, put) {
  const here = open;
  if (here.busy || here.busyElsewhere) return;
  const input = await inputs.input(chain, text, here.id);
  if (input === null) return;
  if (idFromAddress() === null) history.replaceState(null, "", place(here.id));
  running.set(here.id, here);
  const asked = put(here, input);
  said("Asked. The reply is being written.");
  for (const ms of [300, 1500]) setTimeout(() => running.has(here.id) && run(changedHere(here.id)), ms); // it has begun
  if (text === $("text").value) write("");
  try {
    await asked;
  } finally {
    running.delete(here.id);
  }
  const last = here.turns.at(-1);
  const trouble = here.troubles.get(last.turn_id);
  if (here === open) said(trouble ?? `Reply: ${answered(last)}`);
  await changedHere(here.id);
}

const actions = {
  copy: async (_, text) => {
    await copy(text);
    say("Copied.");
  },
  retry: (turn, text) =>
    ask(turn.chain, text, (here, input) =>
      turn.status === "complete" ? here.askAgain(turn.turn_id, turn.chain, input, text) : here.ask(turn.chain, input, text, turn.turn_id),
    ),
  edit: (turn, text) => ask(turn.chain, text, (here, input) => here.askAgain(turn.turn_id, turn.chain, input, text)),
  branch: async (turn) => {
    const { session_id: id, title } = await api.sessions.fork(open.id, turn.turn_id);
    await api.sessions.rename(id, `Branch of ${title}`.slice(0, 200));
    await changedHere(id);
    location.hash = place(id);
    say("This is the branch. The conversation that it came from is as it was.");
  },
};

// What is the same in all tabs.

/** Something changed by what was done here: this list shows it, and so do other tabs. */
async function changedHere(id) {
  tabs.postMessage(id);
  await sidebar.refresh();
  title();
}

async function refresh() {
  await Promise.all([sidebar.refresh(), open.busy || (open.known && open.load())]);
  title();
}

tabs.onmessage = ({ data: id }) => run(Promise.all([sidebar.refresh().then(title), id === open.id && !open.busy && open.load()]));
for (const event of ["focus", "online"]) addEventListener(event, () => run(refresh()));
addEventListener("hashchange", () => run(openFromAddress()));

// What is said to a person besides replies.

/** For who can't see the page. */
function said(text) {
  $("said").textContent = text.slice(0, 2000);
}

function banner(sentence) {
  if ($("banner").textContent === (sentence ?? "")) return;
  Object.assign($("banner"), { textContent: sentence ?? "", hidden: !sentence });
  said(sentence ?? "The connection is back.");
}

let closeToast = () => {};

/** A short note, with a way back if there is an `undo`; `done` is called when that is closed. */
function say(text, { ms = 4000, undo = null, done = () => {} } = {}) {
  closeToast();
  $("what").textContent = text;
  $("undo").hidden = undo === null;
  $("toast").classList.add("shown");
  let timer = 0;
  const close = (after) => {
    clearTimeout(timer);
    closeToast = () => {};
    $("toast").classList.remove("shown");
    after();
  };
  const wait = () => (timer = setTimeout(close, ms, done));
  closeToast = () => close(done);
  $("undo").onclick = () => close(undo);
  $("toast").onmouseenter = $("toast").onfocusin = () => clearTimeout(timer);
  $("toast").onmouseleave = $("toast").onfocusout = () => closeToast && wait();
  wait();
}

/** Asks for a text, or, without one, whether to go on. Gives null for no. */
function prompt(question, text = null) {
  $("question").textContent = question;
  Object.assign($("answer"), { value: text ?? "", hidden: text === null, required: text !== null });
  $("ask").returnValue = "";
  $("ask").showModal();
  $("answer").select();
  return new Promise((answer) => {
    $("ask").onclose = () => answer($("ask").returnValue === "yes" ? $("answer").value : null);
  });
}

async function run(work) {
  try {
    await work;
  } catch (error) {
    if (error.status === 401) location.assign(`login?next=${encodeURIComponent(location.pathname)}`);
    else say(error.message);
  }
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" }); // without TLS
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
}

// The controls.

function write(text) {
  $("text").value = text;
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}

function drawer(shown) {
  const was = document.body.classList.toggle("drawer", shown);
  $("menu").setAttribute("aria-expanded", was);
}

$("text").addEventListener("input", () => write($("text").value));
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (!text.trim()) return;
  const chain = inputs.chain;
  run(ask(chain, text, (here, input) => here.ask(chain, input, text)));
});
$("stop").addEventListener("click", () => {
  run(open.stop());
  $("text").focus();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is a conversation's
  $("text").focus();
});
$("new").addEventListener("click", () => drawer(false));
$("menu").addEventListener("click", () => {
  drawer(true);
  $("close").focus();
});
for (const id of ["close", "shade"]) {
  $(id).addEventListener("click", () => {
    drawer(false);
    $("menu").focus();
  });
}
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("drawer")) $("close").click();
});
$("no").addEventListener("click", () => $("ask").close());
$("older").addEventListener("click", () => run(open.loadOlder()));
new IntersectionObserver(([seen]) => seen.isIntersecting && run(open.loadOlder()), { root: $("log"), rootMargin: "400px" }).observe($("older"));
$("import").addEventListener("change", async () => {
  const [file] = $("import").files;
  $("import").value = "";
  if (file) run(takeIn(file));
});
$("forget").addEventListener("click", () => run(forgetAll()));

async function takeIn(file) {
  let conversation;
  try {
    conversation = JSON.parse(await file.text());
  } catch {
    throw new Error("This file is not a conversation that was exported as JSON.");
  }
  const { session_id: id } = await api.sessions.import({ ...conversation, session_id: newId() });
  await changedHere(id);
  location.hash = place(id);
}

async function forgetAll() {
  if ((await prompt("Delete all of your conversations? There is no way back.")) === null) return;
  await api.sessions.deleteAll();
  forgetInputs();
  location.hash = place(null);
  await changedHere(null);
}

async function start() {
  const [chains, { user_id: user }] = await Promise.all([inputs.load(), api.me(), sidebar.refresh()]);
  $("who").textContent = user;
  $("playgrounds").append("Playgrounds: ", ...chains.flatMap(({ name, playground }) => [Object.assign(document.createElement("a"), { href: playground.slice(1), textContent: name }), " "]));
  await openFromAddress();
}

run(start());
