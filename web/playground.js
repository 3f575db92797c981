// A bar above LangServe's playgrounds: the session, what was said in it, a way to a new one, and why there is no reply.

const { root, chain } = document.getElementById("recollect").dataset;
let { session } = document.getElementById("recollect").dataset;
let path = location.pathname;
const BOX = "Send a message..."; // of the chat playground

const STYLE = `
  #recollect-bar { font: 14px/1.5 system-ui, sans-serif; display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline;
    padding: .4rem 1rem; border-bottom: 1px solid #8885; background: Canvas; color: CanvasText; color-scheme: light dark; }
  #recollect-bar a { color: LinkText; text-decoration: underline; }
  #recollect-bar b { overflow-wrap: anywhere; unicode-bidi: isolate; }
  #recollect-bar details { flex-basis: 100%; }
  #recollect-bar summary { cursor: pointer; }
  #recollect-bar ol { list-style: none; margin: .5rem 0; padding: 0; max-height: 40vh; overflow-y: auto; }
  #recollect-bar li { margin-bottom: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; }
  #recollect-bar [role=alert] { flex-basis: 100%; color: light-dark(#b3261e, #ffb4ab); }
  #recollect-bar [hidden] { display: none; }
`;

const make = (tag, props = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...inside);
  return element;
};
const name = make("b", { dir: "auto" });
const trouble = make("p", { role: "alert", hidden: true });
trouble.setAttribute("role", "alert");
const list = make("ol", { tabIndex: 0 });
list.setAttribute("aria-label", "What was said");
const count = make("summary");
const past = make("details", { hidden: true }, count, list);
const there = make("a", { textContent: "Open it in Recollect" });
const bar = make(
  "header",
  { id: "recollect-bar" },
  make("span", {}, "Session ", name),
  make("a", { href: `${root}${chain}/playground/?new`, textContent: "New conversation" }),
  there,
  trouble,
  past,
);
document.head.append(make("style", { textContent: STYLE }));
document.body.prepend(bar);

const ask = globalThis.fetch;

async function read(what) {
  const response = await ask(root + what);
  return response.ok ? response.json() : { sessions: [], turns: [], next: null };
}

/** Whether the session is one of the newest thousand: to ask for one that is not there is an error in the console. */
async function isThere() {
  for (let page = { next: "" }, pages = 0; page.next !== null && pages < 5; pages++) {
    page = await read(`sessions?limit=200&cursor=${encodeURIComponent(page.next)}`);
    if (page.sessions.some(({ session_id: id }) => id === session)) return true;
  }
  return false;
}

/** Shows what is on the record of the session; gives its last turn. */
async function show() {
  name.textContent = session;
  there.href = `${root}#/${encodeURIComponent(session)}`;
  const { turns, next } = (await isThere())
    ? await read(`sessions/${encodeURIComponent(session)}/turns?limit=50`)
    : { turns: [], next: null };
  past.hidden = turns.length === 0;
  count.textContent = `What was said in it (${turns.length}${next === null ? "" : ", and more before"})`;
  list.replaceChildren(...turns.flatMap(said));
  return turns.at(-1);
}

function said({ input, output, error }) {
  const lines = [...input, ...output]
    .filter(({ type }) => type !== "tool")
    .map(({ type, data }) => [type === "human" ? "You" : "Reply", textOf(data.content)]);
  if (error) lines.push(["No reply", error.message]);
  return lines
    .filter(([, text]) => text)
    .map(([who, text]) => make("li", {}, make("strong", { textContent: `${who}: ` }), text));
}

function textOf(content) {
  return typeof content === "string"
    ? content
    : content.map((block) => (typeof block === "string" ? block : (block.text ?? ""))).join("");
}

/** LangServe's pages say nothing of an error: their requests are listened to, and the record tells. */
globalThis.fetch = async (...args) => {
  const to = new URL(args[0]?.url ?? args[0], location.href);
  if (!/\/(stream_log|stream|invoke)$/.test(to.pathname)) return ask(...args);
  failed("");
  const response = await ask(...args).catch((error) => {
    failed("The server can't be reached.");
    throw error;
  });
  heard(response.clone());
  return response;
};

async function heard(response) {
  const text = await response.text().catch(() => ""); // the page lets go of a stream that fails
  if (!response.ok) {
    const { detail } = JSON.parse(text || '{"detail": "The server refused."}');
    failed(typeof detail === "string" ? detail : detail.map(({ msg }) => msg).join("; "));
  }
  const last = await show();
  if (last?.status === "failed" && last.error) failed(last.error.message);
}

/** Says why there is no reply, above all and where it would stand. */
function failed(sentence) {
  trouble.hidden = !sentence;
  trouble.textContent = sentence && `No reply: ${sentence}`;
  const last = [...document.querySelectorAll("textarea")].find((box) => !box.value && box.placeholder !== BOX); // the newest comes first
  if (last && document.querySelector(`[placeholder="${BOX}"]`)) last.placeholder = trouble.textContent;
}

/** The default playground leads to another address when its session is changed; the page there knows its name. */
setInterval(async () => {
  if (location.pathname === path) return;
  path = location.pathname;
  const page = new DOMParser().parseFromString(await (await ask(path)).text(), "text/html");
  session = page.getElementById("recollect")?.dataset.session ?? session;
  await show();
}, 500);

show();
