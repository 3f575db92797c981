// A conversation that somebody shared. Its link's token stands behind the `#`, which browsers send to nobody.

const $ = (id) => document.getElementById(id);
const when = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
let before = null; // the cursor of the turns before those that are shown

async function read() {
  const token = location.hash.slice(1);
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token, before }),
    credentials: "omit",
    cache: "no-store",
  };
  const response = await fetch("shared", options);
  const answer = await response.json();
  if (!response.ok)
    throw new Error(typeof answer.detail === "string" ? answer.detail : "This is no link to a conversation.");
  return answer;
}

async function show() {
  try {
    const { title, shared_at: at, turns, next } = await read();
    $("title").textContent = title;
    document.title = `\u2068${title}\u2069 · Recollect`;
    $("about").textContent = `As it was on ${when(at)}. Who shared it can take the link back.`;
    const height = document.documentElement.scrollHeight;
    $("turns").prepend(...turns.map(item));
    if (before !== null) scrollBy(0, document.documentElement.scrollHeight - height);
    before = next;
    $("older").hidden = before === null;
  } catch (error) {
    $("about").textContent =
      error instanceof TypeError ? "The server can't be reached. Reload the page to try again." : error.message;
  }
}

function item({ at, question, reply, sources, cut }) {
  const one = $("turn").content.firstElementChild.cloneNode(true);
  const part = (name) => one.querySelector(name);
  part(".you .words").replaceChildren(...question.map(asked));
  part(".parts").replaceChildren(...reply.map(words), ...listed(sources));
  part(".mark").textContent = cut ? "Interrupted" : "";
  part(".meta").textContent = when(at);
  return one;
}

function asked({ text, picture, kind }) {
  if (picture) return Object.assign(new Image(), { src: picture, alt: "Attached picture" });
  return document.createTextNode(text ?? `(${kind || "something"})`);
}

function words(html) {
  const element = Object.assign(document.createElement("div"), { className: "words", innerHTML: html }); // the server's: see api/page_markdown.py
  for (const code of element.querySelectorAll("pre")) {
    code.tabIndex = 0; // it may be wider than the page
    const box = Object.assign(document.createElement("div"), { className: "code" });
    code.replaceWith(box);
    box.append(code);
  }
  return element;
}

function listed(sources) {
  if (!sources.length) return [];
  const list = Object.assign(document.createElement("ol"), { className: "sources" });
  for (const { name, url } of sources) {
    const entry = document.createElement("li");
    entry.append(
      /^https?:/.test(url)
        ? Object.assign(document.createElement("a"), {
            href: url,
            rel: "noopener noreferrer nofollow",
            textContent: name,
          })
        : name,
    );
    list.append(entry);
  }
  return [list];
}

$("older").addEventListener("click", show);
addEventListener("hashchange", () => location.reload());
show();
