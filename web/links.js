// Links by which others may read a conversation: made, listed, revoked.

import { copy, say } from "./notes.js";

const $ = (id) => document.getElementById(id);

export class Links {
  #session = null;

  /** `title(id)` names a conversation. */
  constructor(api, run, title) {
    Object.assign(this, { api, run, title });
    $("link-new").addEventListener("click", () => run(this.#make()));
    $("link-copy").addEventListener("click", () => run(this.#copy()));
  }

  /** Shows the links of all conversations, and offers one of `session`, if there is one. */
  async open(session = null) {
    this.#session = session;
    $("link-made").hidden = true;
    $("link-new").hidden = session === null;
    $("links").showModal();
    await this.#list();
  }

  async #make() {
    const { path } = await this.api.json("POST", `sessions/${encodeURIComponent(this.#session)}/shares`);
    $("link").value = new URL(path, location.href).href;
    $("link-made").hidden = false;
    await this.#list();
    await this.#copy();
  }

  async #copy() {
    $("link").select();
    await copy($("link").value);
    say("The link is copied. It is shown only now.");
  }

  async #list() {
    const { shares } = await this.api.json("GET", "shares");
    shares.sort((a, b) => (b.session_id === this.#session) - (a.session_id === this.#session));
    $("link-none").hidden = shares.length > 0;
    $("link-list").replaceChildren(...shares.map((share) => this.#item(share)));
  }

  #item({ share_id: id, session_id: session, created_at: at }) {
    const item = document.createElement("li");
    const name = this.title(session) ?? "A conversation";
    const link = Object.assign(document.createElement("a"), {
      href: `#/${encodeURIComponent(session)}`,
      textContent: name,
      dir: "auto",
      onclick: () => $("links").close(),
    });
    const when = Object.assign(document.createElement("span"), {
      className: "soft",
      textContent: new Date(at).toLocaleDateString([], { dateStyle: "medium" }),
    });
    const revoke = Object.assign(document.createElement("button"), {
      type: "button",
      className: "quiet",
      textContent: "Revoke",
    });
    revoke.setAttribute("aria-label", `Revoke the link to ${name}`);
    revoke.onclick = () => this.run(this.#revoke(id));
    item.append(link, when, revoke);
    return item;
  }

  async #revoke(id) {
    await this.api.json("DELETE", `shares/${id}`);
    $("link-made").hidden = true;
    await this.#list();
    say("The link opens nothing any more.");
  }
}
