// What this browser keeps for the person who is signed in, and for nobody else: drafts, forms, what was not sent.

const PREFIX = "recollect:";
const ENTRIES = 200; // of each kind: a browser gives a site five megabytes
const PLACE = `${PREFIX}place`;

export class Kept {
  /** `kinds`: what there is to be kept, so that all of it can be forgotten with its conversation. */
  constructor(user, kinds = ["drafts", "inputs", "unsent", "pins"]) {
    Object.assign(this, { user, kinds });
  }

  /** All of one kind: `{conversation: value}`, the newest last. */
  all(kind) {
    try {
      return JSON.parse(localStorage.getItem(this.#key(kind))) ?? {};
    } catch {
      return {};
    }
  }

  get(kind, id) {
    return this.all(kind)[key(id)];
  }

  /** Keeps a value; null forgets it. */
  set(kind, id, value) {
    const { [key(id)]: before, ...others } = this.all(kind);
    if (value === null && before === undefined) return;
    const entries = Object.entries(value === null ? others : { ...others, [key(id)]: value }).slice(-ENTRIES);
    while (!this.#write(kind, entries) && entries.length > 1) entries.splice(0, Math.ceil(entries.length / 2));
  }

  /** Nothing of a deleted conversation stays in the browser; without an `id`, nothing of any. */
  forget(id) {
    for (const kind of this.kinds) {
      if (id === undefined) localStorage.removeItem(this.#key(kind));
      else this.set(kind, id, null);
    }
  }

  #write(kind, entries) {
    try {
      localStorage.setItem(this.#key(kind), JSON.stringify(Object.fromEntries(entries)));
      return true;
    } catch {
      return false; // no room, or none at all in a private window
    }
  }

  #key(kind) {
    return `${PREFIX}${encodeURIComponent(this.user)}:${kind}`;
  }
}

/** Objects put names that look like numbers first, which would make them the oldest. */
const key = (id) => `#${id ?? ""}`;

/** The conversation of such a name. */
export const idOf = (name) => name.slice(1);

/** Who signs out leaves nothing behind, in no tab. The theme is the machine's. */
export function clearKept() {
  for (const name of Object.keys(localStorage))
    if (name.startsWith(PREFIX) && name.includes(":", PREFIX.length)) localStorage.removeItem(name);
  sessionStorage.removeItem(PLACE);
}

/** Where this tab is, over a sign-in: the server never sees that part of the address. */
export function leavePlace(user) {
  sessionStorage.setItem(PLACE, JSON.stringify({ user, hash: location.hash }));
}

/** Goes back there, if it is the same person who came back. */
export function takePlace(user) {
  const place = JSON.parse(sessionStorage.getItem(PLACE) ?? "null");
  sessionStorage.removeItem(PLACE);
  if (place?.user === user && place.hash && !location.hash) history.replaceState(null, "", place.hash);
}
