// Which chain answers, and what it wants to know besides the message. Both belong to the conversation.

import { Form, referred } from "./form.js";

const FIRST = "chat"; // what a conversation begins with, if nothing else was used before
const $ = (id) => document.getElementById(id);

export class Inputs {
  #chains = [];
  #schemas = new Map();
  #session = null;
  #shown = 0;
  #ready;
  #form = null;

  /** `changed(chain)` is called when another chain's form is shown. */
  constructor(api, changed) {
    Object.assign(this, { api, changed });
    $("chain").addEventListener("change", () => (this.#ready = this.#show(this.chain)));
  }

  /** Takes the chains in; gives them. `kept`: where what was said before is. */
  async load() {
    this.#chains = await this.api.chains();
    $("chain").replaceChildren(...this.#chains.map(({ name }) => new Option(name, name)));
    return this.#chains;
  }

  get chain() {
    return $("chain").value;
  }

  /** Whether the chain takes whole messages, which may hold pictures, and not only text. */
  get takesMessages() {
    const place = this.#place(this.chain);
    return place !== undefined && place.type !== "string";
  }

  /** What to begin a conversation with: the examples of the message's schema. */
  get starters() {
    return (this.#place(this.chain)?.examples ?? []).filter((one) => typeof one === "string");
  }

  /** Shows what was last used in a session: its chain, and what that chain was told. */
  async open(session, chain) {
    this.#session = session;
    const wanted = chain || this.kept.get("inputs", session)?.chain || this.kept.get("inputs", null)?.chain || FIRST;
    if (this.#chains.some(({ name }) => name === wanted)) $("chain").value = wanted;
    await (this.#ready = this.#show(this.chain));
  }

  /** The input of a chain with this message; null if the form lacks something, which the browser then says. */
  async input(chain, content, session) {
    await this.#ready; // the form of a chain that was chosen just now
    if (chain !== this.chain) {
      if (!this.#card(chain)) throw new Error(`The chain ${chain} is not here any more.`);
      $("chain").value = chain;
      await this.#show(chain);
    }
    if (!this.#form.valid()) return null;
    const values = this.#form.value();
    for (const id of [session, null]) this.kept.set("inputs", id, { chain, values: light(values) });
    const { input_key: key } = this.#card(chain);
    const message = this.takesMessages ? [{ type: "human", content }] : content;
    return key === null ? message : { ...values, [key]: message };
  }

  /** Says what the server said of the input, each at its field; gives the sentences that have none. */
  complain(problems) {
    return this.#form.complain(problems);
  }

  #card(chain) {
    return this.#chains.find(({ name }) => name === chain);
  }

  /** The schema of the place where the message goes. */
  #place(chain) {
    const whole = this.#schemas.get(chain);
    const schema = referred(whole);
    const key = this.#card(chain)?.input_key ?? null;
    return key === null ? schema : referred(schema?.properties?.[key], whole?.$defs);
  }

  async #show(chain) {
    const shown = ++this.#shown;
    if (!this.#schemas.has(chain)) this.#schemas.set(chain, await this.api.inputSchema(chain));
    if (shown !== this.#shown) return;
    const { input_key: key, description } = this.#card(chain);
    const said = this.kept.get("inputs", this.#session) ?? this.kept.get("inputs", null);
    const values = said?.chain === chain ? said.values : {};
    this.#form = new Form(key === null ? {} : this.#schemas.get(chain), { skip: key, values });
    $("fields").replaceChildren($("fields").firstElementChild, ...this.#form.elements);
    $("about").textContent = description;
    this.changed(chain);
  }
}

/** Values that a browser has room for: no files. */
function light(values) {
  return JSON.parse(
    JSON.stringify(values, (_, value) => (typeof value === "string" && value.length > 20_000 ? undefined : value)),
  );
}
