// A form from a JSON schema: what a chain wants to know besides the message.

const LONG = 200; // characters that no longer fit on one line
const INPUTS = {
  date: "date",
  time: "time",
  "date-time": "datetime-local",
  email: "email",
  uri: "url",
  password: "password",
};
let fields = 0;

/** What a schema that is a reference, as the whole schema of a chain may be, refers to. */
export function referred(schema, defs = schema?.$defs ?? schema?.definitions ?? {}) {
  let found = schema;
  for (let steps = 0; found?.$ref && steps < 20; steps++) {
    const { $ref: name, ...own } = found;
    found = { ...defs[name.split("/").at(-1)], ...own };
  }
  return found;
}

/** The fields of an object's schema. */
export class Form {
  #defs;
  #fields;

  /** `skip`: the property that is no field. `values`: what was said before. */
  constructor(schema, { skip, values = {} } = {}) {
    this.#defs = schema.$defs ?? schema.definitions ?? {};
    this.#fields = this.#properties(referred(schema), [], values, skip);
  }

  get elements() {
    return this.#fields.map(({ element }) => element);
  }

  /** The object that was said; what was left open is not in it. */
  value() {
    return objectOf(this.#fields);
  }

  /** Whether all is as it should be. If not, the browser says what is missing, and where. */
  valid() {
    return this.elements.every((element) => [...controls(element)].every((one) => one.reportValidity()));
  }

  /** Says at the field what the server said of it: `[{loc, msg}]`. Gives what belongs to no field. */
  complain(problems) {
    for (const field of flat(this.#fields)) field.fail("");
    const others = problems.filter(({ loc, msg }) => !this.#at(loc ?? [])?.fail(msg));
    flat(this.#fields)
      .find(({ failed }) => failed)
      ?.control?.focus();
    return others;
  }

  /** The innermost field that a place in the input leads to. */
  #at(loc) {
    let found = null;
    for (const field of flat(this.#fields)) {
      const place = loc.findIndex((part) => part === field.path[0]);
      const leads = place >= 0 && field.path.every((part, step) => loc[place + step] === part);
      if (leads && (!found || field.path.length >= found.path.length)) found = field;
    }
    return found;
  }

  #properties(schema, path, values, skip) {
    const wanted = Object.entries(schema.properties ?? {}).filter(([name]) => name !== skip);
    return wanted.flatMap(([name, inner]) => {
      const required = (schema.required ?? []).includes(name);
      const field = this.#field(inner, { name, path: [...path, name], required, value: values?.[name] });
      return field ? [field] : [];
    });
  }

  /** A field; null for what needs none: it may be left out, and there is no telling what it is. */
  #field(given, at) {
    const { schema, nullable } = this.#plain(given);
    const required = at.required && !nullable;
    const place = {
      ...at,
      required,
      value: at.value ?? schema.default,
      label: schema.title ?? at.name,
      help: schema.description,
    };
    if (schema.enum) return choice(schema.enum, place);
    if (schema.type === "boolean")
      return required || schema.default !== undefined ? tick(place) : choice([true, false], place, ["Yes", "No"]);
    if (schema.type === "integer" || schema.type === "number") return number(schema, place);
    if (schema.type === "string") return schema.widget?.type === "base64file" ? file(place) : text(schema, place);
    if (schema.type === "object" && schema.properties) return this.#group(schema, place);
    if (schema.type === "array" && this.#plain(schema.items ?? {}).schema.type) return this.#list(schema, place);
    return required ? json(place) : null;
  }

  /** A schema without references, and without `null` among its types. */
  #plain(schema) {
    const seen = { ...schema };
    while (seen.$ref || seen.allOf?.length === 1) {
      const inner = seen.$ref ? (this.#defs[seen.$ref.split("/").at(-1)] ?? {}) : seen.allOf[0];
      delete seen[seen.$ref ? "$ref" : "allOf"];
      for (const [key, value] of Object.entries(inner)) seen[key] ??= value;
    }
    if ("const" in seen) seen.enum = [seen.const];
    const kinds = seen.anyOf ?? seen.oneOf;
    if (!kinds) return { schema: seen, nullable: false };
    const { anyOf: _any, oneOf: _one, ...own } = seen;
    const others = kinds.filter(({ type }) => type !== "null").map((kind) => this.#plain(kind).schema);
    const nullable = others.length < kinds.length;
    if (others.every((kind) => kind.enum))
      return { schema: { ...own, enum: others.flatMap((kind) => kind.enum) }, nullable };
    const simple = others.length === 1 ? others[0] : (others.find(({ type }) => type === "string") ?? {});
    return { schema: { ...simple, ...own }, nullable };
  }

  #group(schema, place) {
    const inner = this.#properties(schema, place.path, place.value);
    const element = fieldset(place);
    element.append(...inner.map((field) => field.element));
    const value = () => {
      const said = objectOf(inner);
      return place.required || Object.keys(said).length ? said : undefined;
    };
    return finish({ element, inner, value, control: element.querySelector("input, select, textarea") }, place);
  }

  #list(schema, place) {
    const element = fieldset(place);
    const rows = make("div", "rows");
    const add = Object.assign(make("button", "quiet"), { type: "button", textContent: "Add" });
    const inner = [];
    const row = (value, focus = false) => {
      const name = `${place.label} ${inner.length + 1}`;
      const field = this.#field(
        { ...schema.items, title: name },
        { name, path: [...place.path, inner.length], required: true, value },
      );
      const remove = Object.assign(make("button", "icon"), { type: "button", textContent: "✕" });
      remove.setAttribute("aria-label", `Remove ${name}`);
      remove.onclick = () => {
        inner.splice(inner.indexOf(field), 1);
        field.element.remove();
        inner.forEach((one, at) => (one.path[place.path.length] = at));
        add.focus();
      };
      field.element.append(remove);
      inner.push(field);
      rows.append(field.element);
      if (focus) field.control?.focus();
    };
    add.onclick = () => inner.length < (schema.maxItems ?? Infinity) && row(undefined, true);
    for (const value of Array.isArray(place.value) ? place.value : Array(schema.minItems ?? 0).fill(undefined))
      row(value);
    element.append(rows, add);
    const value = () =>
      place.required || inner.length
        ? inner.map((field) => field.value()).filter((one) => one !== undefined)
        : undefined;
    return finish({ element, inner, value, control: add }, place);
  }
}

// The kinds of fields: each has an element, a value, and says what is wrong with it.

function text(schema, place) {
  const long = schema.widget?.type === "textarea" || schema.format === "textarea" || schema.maxLength > LONG;
  const box = long ? Object.assign(make("textarea"), { rows: 3 }) : make("input");
  if (!long) box.type = INPUTS[schema.format] ?? "text";
  const bounds = { placeholder: schema.examples?.[0] ?? "", dir: "auto", value: place.value ?? "" };
  Object.assign(
    box,
    bounds,
    schema.minLength && { minLength: schema.minLength },
    schema.maxLength && { maxLength: schema.maxLength },
  );
  if (schema.pattern && !long) box.pattern = `.*(?:${schema.pattern}).*`;
  const zoned = () => (box.type === "datetime-local" && box.value ? new Date(box.value).toISOString() : box.value);
  return labelled(box, place, () => zoned() || undefined);
}

function number(schema, place) {
  const whole = schema.type === "integer";
  const step = schema.multipleOf ?? (whole ? 1 : "any");
  const above = schema.exclusiveMinimum !== undefined && whole ? schema.exclusiveMinimum + 1 : schema.exclusiveMinimum;
  const below = schema.exclusiveMaximum !== undefined && whole ? schema.exclusiveMaximum - 1 : schema.exclusiveMaximum;
  const bounds = { type: "number", step, min: schema.minimum ?? above ?? "", max: schema.maximum ?? below ?? "" };
  const box = Object.assign(make("input"), bounds, {
    value: place.value ?? "",
    placeholder: schema.examples?.[0] ?? "",
  });
  return labelled(box, place, () => (box.value === "" ? undefined : Number(box.value)));
}

function tick(place) {
  const box = Object.assign(make("input"), { type: "checkbox", checked: place.value === true });
  return labelled(box, { ...place, required: false }, () => box.checked); // required means: said, and not: yes
}

function choice(values, place, names = values.map(String)) {
  const box = make("select");
  if (!place.required || place.value === undefined) box.append(new Option("", ""));
  box.append(...values.map((_, at) => new Option(names[at], at)));
  const chosen = values.indexOf(place.value);
  box.value = chosen < 0 ? "" : chosen;
  return labelled(box, place, () => (box.value === "" ? undefined : values[box.value]));
}

function file(place) {
  const box = Object.assign(make("input"), { type: "file" });
  let packed = place.value;
  box.onchange = async () => {
    const [picked] = box.files;
    packed = picked && (await base64(picked));
  };
  if (packed) place = { ...place, required: false };
  return labelled(box, place, () => packed);
}

function json(place) {
  const value = place.value === undefined ? "" : JSON.stringify(place.value);
  const box = Object.assign(make("textarea"), { rows: 2, value, placeholder: "JSON" });
  box.oninput = () => box.setCustomValidity(box.value && parsed(box.value) === undefined ? "This is not JSON." : "");
  return labelled(box, place, () => parsed(box.value));
}

function labelled(box, place, value) {
  const element = make("div", "field");
  const label = Object.assign(make("label"), { htmlFor: (box.id = `field-${++fields}`), textContent: place.label });
  Object.assign(box, { name: place.path.join("."), required: place.required });
  element.append(...(box.type === "checkbox" ? [box, label] : [label, box]));
  return finish({ element, inner: [], value, control: box }, place);
}

function fieldset({ label }) {
  const element = make("fieldset", "field");
  element.append(Object.assign(make("legend"), { textContent: label }));
  return element;
}

/** What a field says below itself: what it is for, and what is wrong with it. */
function finish(field, { path, help }) {
  const note = Object.assign(make("p", "soft help"), { textContent: help ?? "", hidden: !help });
  const wrong = Object.assign(make("p", "wrong"), { hidden: true });
  [note.id, wrong.id] = [`help-${++fields}`, `wrong-${fields}`];
  field.element.append(note, wrong);
  field.control?.setAttribute("aria-describedby", `${note.id} ${wrong.id}`);
  const fail = (why) => {
    field.failed = why !== "";
    Object.assign(wrong, { textContent: why, hidden: !why });
    field.control?.setAttribute("aria-invalid", field.failed);
    return true;
  };
  field.element.addEventListener("input", () => field.failed && fail(""));
  return Object.assign(field, { path: [...path], fail, failed: false });
}

function objectOf(fields) {
  const pairs = fields.map((field) => [field.path.at(-1), field.value()]);
  return Object.fromEntries(pairs.filter(([, value]) => value !== undefined));
}

const flat = (fields) => fields.flatMap((field) => [field, ...flat(field.inner)]);
const controls = (element) => element.querySelectorAll("input, select, textarea");
const make = (tag, className = "") => Object.assign(document.createElement(tag), { className });

function parsed(value) {
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}

/** A file's bytes, as JSON can carry them. */
export function base64(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error("This file can't be read."));
    reader.readAsDataURL(blob);
  });
}
