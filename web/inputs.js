// Which chain answers, and what it wants to know besides the message: a form made from its input schema.

const KEPT = "recollect:inputs"; // the record keeps messages only, so the browser remembers the rest, by session
const KEPT_SESSIONS = 200;
const $ = (id) => document.getElementById(id);

export class Inputs {
  #chains = [];
  #schemas = new Map();
  #session = null;
  #shown = 0;
  #ready;

  constructor(api) {
    this.api = api;
    $("chain").addEventListener("change", () => (this.#ready = this.#show(this.chain)));
  }

  /** Takes the chains in; gives their names. */
  async load() {
    this.#chains = await this.api.chains();
    $("chain").replaceChildren(...this.#chains.map(({ name }) => new Option(name, name)));
    return this.#chains;
  }

  get chain() {
    return $("chain").value;
  }

  /** Shows what was last used in a session: its chain, and what that chain was told. */
  async open(session, chain) {
    this.#session = session;
    const wanted = chain || kept()[session]?.chain || kept()[""]?.chain;
    if (this.#chains.some(({ name }) => name === wanted)) $("chain").value = wanted;
    await (this.#ready = this.#show(this.chain));
  }

  /** The input of a chain with this message; null if the form lacks something, which the browser then says. */
  async input(chain, text, session) {
    await this.#ready; // the form of a chain that was chosen just now
    if (chain !== this.chain) {
      if (!this.#chains.some(({ name }) => name === chain)) throw new Error(`The chain ${chain} is not here any more.`);
      $("chain").value = chain;
      await this.#show(chain);
    }
    const fields = [...document.querySelectorAll("#fields [name]")];
    if (!fields.every((field) => field.reportValidity())) return null;
    const extras = Object.fromEntries(fields.filter(({ value }) => value).map(({ name, value }) => [name, value]));
    keep(session, { chain, extras });
    const key = this.#chains.find(({ name }) => name === chain).input_key;
    const schema = await this.#schema(chain);
    const place = key === null ? schema : schema.properties?.[key];
    const message = place?.type === "string" ? text : [{ type: "human", content: text }];
    return key === null ? message : { ...extras, [key]: message };
  }

  async #schema(chain) {
    if (!this.#schemas.has(chain)) this.#schemas.set(chain, await this.api.inputSchema(chain));
    return this.#schemas.get(chain);
  }

  async #show(chain) {
    const shown = ++this.#shown;
    const schema = await this.#schema(chain);
    if (shown !== this.#shown) return;
    const { input_key: key, description } = this.#chains.find(({ name }) => name === chain);
    const said = kept()[this.#session] ?? kept()[""];
    const names = key === null ? [] : Object.keys(schema.properties ?? {}).filter((name) => name !== key);
    const fields = names.filter((name) => schema.properties[name].type === "string").map((name) => {
      const value = said?.chain === chain ? said.extras[name] : undefined;
      return field(name, schema.properties[name], schema.required?.includes(name), value);
    });
    $("fields").replaceChildren($("fields").firstElementChild, ...fields);
    $("about").textContent = description;
  }
}

function field(name, { title, description, examples, default: preset, enum: choices }, required, value) {
  const label = document.createElement("label");
  label.className = "field";
  const box = document.createElement(choices ? "select" : "input");
  if (choices) box.append(...choices.map((choice) => new Option(choice, choice)));
  else Object.assign(box, { placeholder: examples?.[0] ?? "", dir: "auto" });
  Object.assign(box, { name, required: !!required, value: value ?? preset ?? "", title: description ?? "" });
  label.append(`${title ?? name} `, box);
  return label;
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

/** Under the session's name, and, for new conversations, as the last one of all. */
function keep(session, what) {
  const { [session]: _, ...others } = kept();
  const latest = Object.entries({ ...others, [session]: what, "": what }).slice(-KEPT_SESSIONS);
  localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(latest)));
}

/** Nothing of deleted conversations stays in the browser. */
export function forgetInputs(session) {
  const { [session]: _, ...others } = session === undefined ? {} : kept();
  localStorage.setItem(KEPT, JSON.stringify(others));
}
