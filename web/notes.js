// What is said to a person besides replies: a toast with a way back, a banner, a question, words for who can't see.

export const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
const $ = (id) => document.getElementById(id);
let closeToast = () => {};

/** For who can't see the page. */
export function said(text) {
  $("said").textContent = text.slice(0, 2000);
}

export function banner(sentence) {
  if ($("banner").textContent === (sentence ?? "")) return;
  Object.assign($("banner"), { textContent: sentence ?? "", hidden: !sentence });
  said(sentence ?? "The connection is back.");
}

/** A short note, with a way back if there is an `undo`; `done` is called when that is closed. */
export function say(text, { ms = 4000, undo = null, done = () => {} } = {}) {
  closeToast();
  $("what").textContent = text;
  $("undo").hidden = undo === null;
  const modal = document.querySelector("dialog[open]"); // nothing outside of it can be clicked
  (modal ?? document.body).append($("toast"));
  modal?.addEventListener("close", () => document.body.append($("toast")), { once: true });
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
export function prompt(question, text = null, { optional = false } = {}) {
  $("question").textContent = question;
  Object.assign($("answer"), { value: text ?? "", hidden: text === null, required: text !== null && !optional });
  $("ask").returnValue = "";
  $("ask").showModal();
  $("answer").select();
  return new Promise((answer) => {
    $("ask").onclose = () => answer($("ask").returnValue === "yes" ? $("answer").value : null);
  });
}

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" }); // without TLS
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
}
