// The page: which conversation is open, and what a person does with it.

import { Recollect, newId } from "./client.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { Inputs } from "./inputs.js";
import { Kept, clearKept, leavePlace, takePlace } from "./kept.js";
import { banner, copy, isMac, prompt, said, say } from "./notes.js";
import { Sidebar, drawer } from "./sidebar.js";
import { answered, textOfQuestion } from "./turn.js";
import { View } from "./view.js";

const POLL_MS = 1500;
const UNDO_MS = 6000;
const TITLE_MS = 4000;
const $ = (id) => document.getElementById(id);
const api = new Recollect();
const tabs = new BroadcastChannel("recollect");
const leaving = new Set(); // what is still to be done when the page is left
const running = new Map(); // conversations with a turn that runs here, also while another one is open
const composer = new Composer({ send: (content) => run(send(content)), say });
const inputs = new Inputs(api, () => formChanged());
const view = new View(api, (what, turn, value) => run(actions[what](turn, value)));
const sidebar = new Sidebar(api, { left: () => (location.hash = place(null)), changed: changedHere });
let [links, memory, palette] = [null, null, null]; // dialogs are fetched when they are opened, and so is what imports
let kept = null; // what this browser keeps for who is signed in
let open = null;
let poll = 0;

// The conversation that is open.

function conversation(id) {
  const trouble = (sentence) => id === open?.id && banner(sentence);
  const grew = (conversation) => conversation === open && view.grew(open);
  return new Conversation(api, kept, id, { changed, grew, trouble, failed: (error) => run(Promise.reject(error)) });
}

/** The place of a conversation in this page's address. */
const place = (id) => `#/${id === null ? "" : encodeURIComponent(id)}`;

/** The conversation in the address, and the turn in it, if there is one. */
function fromAddress() {
  try {
    const [, id, turn] = location.hash.split("/").map(decodeURIComponent);
    return { id: id || null, turn: turn || null };
  } catch {
    return { id: null, turn: null };
  }
}

async function openFromAddress() {
  const { id, turn } = fromAddress();
  if (id === null || id !== open?.id) await openConversation(id);
  if (turn !== null && (await open.loadTo(turn))) view.reveal(turn);
}

async function openConversation(id) {
  open?.leave();
  const opened = (open = id === null ? conversation(newId()) : (running.get(id) ?? conversation(id)));
  opened.joins = true;
  banner(null);
  drawer(false);
  composer.open(id);
  sidebar.mark(id);
  changed(open);
  if (id !== null && !open.busy) await open.load();
  if (open !== opened) return;
  await Promise.all([inputs.open(id, open.turns.at(-1)?.chain), name(open)]);
  if (matchMedia("(min-width: 48rem)").matches) $("text").focus();
}

function changed(conversation) {
  if (conversation !== open) return;
  view.draw(open);
  const busy = open.busy || open.busyElsewhere;
  $("stop").hidden = !busy;
  $("stop").disabled = open.stopping;
  $("send").hidden = busy;
  $("export").hidden = $("share").hidden = !open.known;
  $("as-json").href = api.sessions.exportUrl(open.id, "json");
  $("as-markdown").href = api.sessions.exportUrl(open.id, "markdown");
  $("starters").hidden = open.turns.length > 0;
  title();
  clearTimeout(poll);
  if (open.busyElsewhere) poll = setTimeout(() => run(open.load()), POLL_MS);
}

/** Learns the title of a conversation that the list does not show. */
async function name(conversation) {
  if (!conversation.known || sidebar.title(conversation.id)) return;
  conversation.title = (await api.sessions.get(conversation.id)).title;
  title();
}

function title() {
  const name = sidebar.title(open.id) ?? (open.known ? (open.title ?? "Conversation") : "New conversation");
  if ($("title").textContent !== name) $("title").textContent = name;
  document.title = open.known ? `\u2068${name}\u2069 · Recollect` : "Recollect";
}

/** The form is another chain's now. */
function formChanged() {
  composer.attachments.offered = inputs.takesMessages;
  const starters = inputs.starters.map((text) =>
    Object.assign(document.createElement("button"), {
      type: "button",
      className: "quiet",
      dir: "auto",
      textContent: text,
      onclick: () => run(send(text)),
    }),
  );
  $("starters").replaceChildren(...starters);
}

// Questions.

async function send(content) {
  if (open === null) return; // the page is not ready: what was typed stays
  if (open.busy || open.busyElsewhere) return;
  await ask(inputs.chain, content, (here, input) => {
    composer.clear();
    return here.ask(inputs.chain, input, content);
  });
}

/** Puts a question in the open conversation with `put`, and sees to all that follows from it. */
async function ask(chain, content, put, given = null) {
  const here = open;
  if (here.busy || here.busyElsewhere) return;
  const input = given ?? (await inputs.input(chain, content, here.id));
  if (input === null) return;
  if (fromAddress().id === null) {
    history.replaceState(null, "", place(here.id));
    composer.named(here.id);
  }
  running.set(here.id, here);
  const asked = put(here, input);
  if (here === open) view.follow();
  said("Asked. The reply is being written.");
  for (const ms of [300, 1500]) setTimeout(() => running.has(here.id) && run(changedHere(here.id)), ms); // it has begun
  try {
    await asked;
  } catch (error) {
    if (!here.live && !here.busy && !error.status) say(error.message, { ms: 8000 });
    refused(here, error);
  } finally {
    running.delete(here.id);
  }
  const last = here.turns.at(-1);
  const trouble = last && here.troubles.get(last.turn_id);
  if (here === open && last) said(trouble ?? `Reply: ${answered(last)}`);
  await changedHere(here.id);
  if (here.turns.length === 1) setTimeout(() => run(changedHere(here.id)), TITLE_MS); // the model may have found a title
}

/** A question that was not sent: what the form lacks is said at its field, and the question is back in the box. */
function refused(here, error) {
  if (error.status === 401) throw error;
  if (error.status !== 422 || !Array.isArray(error.detail) || here !== open) return;
  const others = inputs.complain(error.detail);
  if (others.length === error.detail.length) return;
  composer.write(textOfQuestion(here.takeBack()));
  if (others.length) say(others.map(({ msg }) => msg).join("; "));
}

const actions = {
  copy: async (_, text) => {
    await copy(text);
    say("Copied.");
  },
  retry: (turn, content) =>
    ask(
      turn.chain,
      content,
      (here, input) =>
        turn.status === "complete"
          ? here.askAgain(turn.turn_id, turn.chain, input, content)
          : here.ask(turn.chain, input, content, turn.turn_id),
      turn.asked,
    ),
  edit: (turn, content) =>
    ask(turn.chain, content, async (here, input) => {
      try {
        await here.askAgain(turn.turn_id, turn.chain, input, content);
      } catch (error) {
        if (here !== open || composer.text) throw error;
        composer.write(content);
        throw new Error(`${error.message} Your words are in the message box.`);
      }
    }),
  choose: (_, version) => open.choose(version),
  rate: async (turn, score) => {
    const why = score < 0 ? await prompt("What was wrong? Leave it empty if you like.", "", { optional: true }) : "";
    if (why !== null) await open.rate(turn.turn_id, score, why);
  },
  remove: (turn) => {
    const [here, id] = [open, turn.turn_id];
    here.leaving.add(id);
    changed(here);
    leaving.add(() => here.remove(id, true));
    say("The turn is deleted.", {
      ms: UNDO_MS,
      undo: () => (here.leaving.delete(id), changed(here)),
      done: () => run(here.remove(id).then(() => changedHere(here.id))),
    });
  },
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
  tabs.postMessage({ changed: id });
  await sidebar.refresh();
  title();
}

async function refresh() {
  await Promise.all([sidebar.refresh(), open.busy || (open.known && open.load())]);
  await name(open);
  title();
}

tabs.onmessage = ({ data }) => {
  if (data.signedOut) return (forgetAll(), location.assign("login"));
  if (open === null) return; // this page is still opening: all that it shows is yet to be fetched
  run(Promise.all([sidebar.refresh().then(title), data.changed === open.id && !open.busy && open.load()]));
};
for (const event of ["focus", "online"]) addEventListener(event, () => open && run(refresh()));
addEventListener("hashchange", () => run(openFromAddress()));

async function run(work) {
  try {
    await work;
  } catch (error) {
    if (error.status !== 401) return say(error.message);
    if (kept) leavePlace(kept.user);
    location.assign(`login?next=${encodeURIComponent(location.pathname)}`);
  }
}

addEventListener("pagehide", () => leaving.forEach((now) => now()));

// The controls.

function theme(name) {
  dispatchEvent(new CustomEvent("recollect-theme", { detail: name }));
  $("theme").value = name;
}

/** All of it, and not what happens to be loaded. */
async function print() {
  say("Preparing all turns…", { ms: 60_000 });
  await open.load(); // which may not have come to its end
  await open.loadAll();
  await view.withAll(() => (say("Printing."), window.print()));
}

async function openLinks(id) {
  links ??= new (await import("./links.js")).Links(api, run, (one) => sidebar.title(one));
  await links.open(id);
}

async function openMemory() {
  memory ??= new (await import("./memory.js")).Memory(api, run);
  await memory.open();
}

async function openPalette() {
  $("wanted").value = "";
  $("palette").showModal(); // at once: the next keys are meant for it
  palette ??= new (await import("./palette.js")).Palette(commands, {
    find: async (q) => (await api.sessions.list({ limit: 20, q })).sessions,
    open: (id) => (location.hash = place(id)),
  });
  palette.look();
}

async function takeFiles(files) {
  const { takeIn } = await import("./takein.js");
  await takeIn(api, files, async (id) => {
    await changedHere(id);
    if (id) location.hash = place(id);
  });
}

/** Who signs out, here or in another tab, leaves nothing in the browser. */
function forgetAll() {
  clearKept();
  kept = composer.kept = null; // or the draft would be kept once more when the page goes
}

const known = () => open?.known;
const commands = [
  { name: "New conversation", keys: "mod+shift+o", run: () => (location.hash = place(null)) },
  { name: "Search conversations", keys: "/", run: () => (drawer(true), $("search").focus()) },
  { name: "Write a message", keys: "mod+shift+m", run: () => $("text").focus() },
  { name: "Go to the latest", keys: "mod+shift+l", run: () => view.follow() },
  { name: "Stop the reply", keys: "mod+.", run: () => $("stop").click(), when: () => !$("stop").hidden },
  {
    name: "Copy the last reply",
    keys: "mod+shift+c",
    run: () => run(actions.copy(null, answered(open.turns.at(-1)))),
    when: () => open?.turns.length,
  },
  { name: "Next conversation", keys: "mod+shift+arrowdown", run: () => step(1) },
  { name: "Previous conversation", keys: "mod+shift+arrowup", run: () => step(-1) },
  { name: "Rename this conversation", run: () => run(sidebar.renameOpen()), when: known },
  { name: "Delete this conversation", run: () => sidebar.deleteOpen(), when: known },
  { name: "Share this conversation", run: () => run(openLinks(open.id)), when: known },
  { name: "Notes about you", run: () => run(openMemory()) },
  { name: "Print this conversation", keys: "mod+p", run: () => run(print()), when: known },
  ...["auto", "light", "dark"].map((one) => ({
    name: `Theme: ${one === "auto" ? "as the system" : one}`,
    run: () => theme(one),
  })),
  { name: "Show all commands", keys: "?", run: () => run(openPalette()) },
  { name: "Commands", keys: "mod+k", run: () => run(openPalette()) },
];

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  const { key, ctrlKey, metaKey, altKey, shiftKey } = event;
  const isPlain = !ctrlKey && !metaKey && !altKey && key.length === 1;
  if (isPlain && event.target.closest("input, textarea, select")) return;
  const wanted = [(isMac ? metaKey : ctrlKey) && "mod", shiftKey && "shift", key.toLowerCase()]
    .filter(Boolean)
    .join("+");
  const command = commands.find(({ keys, when }) => keys === (isPlain ? key : wanted) && (when?.() ?? true));
  if (!command) return;
  event.preventDefault();
  command.run();
});

function step(by) {
  const id = sidebar.neighbour(by);
  if (id) location.hash = place(id);
}

$("stop").addEventListener("click", ({ detail: clicks }) => {
  if (clicks > 1) return; // the second half of a double click on "Send", which stood here
  run(open.stop());
  $("text").focus();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is a conversation's
  $("text").focus();
});
$("new").addEventListener("click", () => drawer(false));
$("commands").addEventListener("click", () => run(openPalette()));
$("no").addEventListener("click", () => $("ask").close());
const older = () => {
  if (!view.showMore()) run(open.loadOlder());
};
$("older").addEventListener("click", older);
new IntersectionObserver(([seen]) => seen.isIntersecting && older(), {
  root: $("log"),
  rootMargin: "400px",
}).observe($("older"));
$("import").addEventListener("change", () => {
  const files = [...$("import").files];
  $("import").value = "";
  run(takeFiles(files));
});
$("share").addEventListener("click", () => run(openLinks(open.id)));
$("shared").addEventListener("click", () => run(openLinks()));
$("memory").addEventListener("click", () => run(openMemory()));
$("forget").addEventListener("click", () => run(sidebar.deleteAll()));
$("theme").value = document.documentElement.dataset.theme;
$("theme").addEventListener("change", () => theme($("theme").value));
document.querySelector("#account form").addEventListener("submit", () => {
  forgetAll();
  tabs.postMessage({ signedOut: true });
});

async function start() {
  const [chains, { user_id: user }] = await Promise.all([inputs.load(), api.me()]);
  kept = composer.kept = inputs.kept = sidebar.kept = new Kept(user);
  takePlace(user);
  $("who").textContent = user;
  $("playgrounds").append(
    "Playgrounds: ",
    ...chains.flatMap(({ name, playground }) => [
      Object.assign(document.createElement("a"), { href: playground.slice(1), textContent: name }),
      " ",
    ]),
  );
  await Promise.all([openFromAddress(), sidebar.refresh()]);
  title();
}

run(start());
