// The message box: what is typed is kept as a draft of its conversation, and files can be put beside it.

import { Attachments } from "./attachments.js";

const KEEP_MS = 300; // after the last key
const DRAFT = 1_000_000; // characters: a browser gives a site five million
const $ = (id) => document.getElementById(id);
const onPhone = matchMedia("(pointer: coarse) and (hover: none)");
const grows = CSS.supports("field-sizing", "content");

export class Composer {
  kept = null;
  #session = undefined;
  #timer = 0;

  /** `send(content)` is called with what was written, `say(sentence)` tells a person something. */
  constructor({ send, say }) {
    this.attachments = new Attachments(say);
    const box = $("text");
    box.addEventListener("input", () => this.#changed());
    box.addEventListener("keydown", (event) => this.#key(event));
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      const content = this.attachments.with(box.value);
      if (content !== null) send(content);
    });
    addEventListener("pagehide", () => this.#keep());
    document.addEventListener("visibilitychange", () => this.#keep());
    $("hint-keys").textContent = onPhone.matches ? "" : "Enter sends, Shift+Enter makes a new line. ";
  }

  get text() {
    return $("text").value;
  }

  /** Shows the draft of a conversation (null: of the new one), and keeps that of the one before. */
  open(session) {
    if (session === this.#session) return;
    const typedBefore = this.#session === undefined && this.text; // before the page was ready
    if (this.#session !== undefined) this.#keep();
    this.#session = session;
    this.attachments.clear();
    this.write(typedBefore || this.kept.get("drafts", session) || "");
  }

  /** The new conversation has a name now. */
  named(session) {
    this.kept.set("drafts", this.#session, null);
    this.#session = session;
  }

  write(text) {
    $("text").value = text;
    this.#grow();
  }

  /** What was written is on its way. */
  clear() {
    this.write("");
    this.attachments.clear();
    this.#keep();
  }

  #changed() {
    this.#grow();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#keep(), KEEP_MS);
  }

  #keep() {
    clearTimeout(this.#timer);
    if (this.kept && this.#session !== undefined)
      this.kept.set("drafts", this.#session, this.text.slice(0, DRAFT) || null);
  }

  #grow() {
    if (grows) return;
    $("text").style.height = "auto";
    $("text").style.height = `${$("text").scrollHeight + 2}px`;
  }

  /** Enter sends; not the one that ends an input method's word (Safari only tells by 229), nor a phone's. */
  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    if (onPhone.matches && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    $("composer").requestSubmit();
  }
}
