// Pictures and text files beside a message: by button, paste and drop. They travel as content blocks of LangChain's.

import { base64 } from "./form.js";

const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const PICTURE_BYTES = 2_000_000; // the server takes four megabytes, in base64, with all that was attached
const TEXT_BYTES = 200_000;
const AT_MOST = 5;
const $ = (id) => document.getElementById(id);

export class Attachments {
  #blocks = []; // {name, block}

  constructor(say) {
    this.say = say;
    $("attach").addEventListener("change", () => {
      this.#take([...$("attach").files]);
      $("attach").value = "";
    });
    $("text").addEventListener("paste", (event) => this.#offered(event, event.clipboardData));
    addEventListener("dragover", (event) => this.#over(event));
    addEventListener("drop", (event) => this.#offered(event, event.dataTransfer));
  }

  /** Whether the chain that answers takes files. What is attached waits for one that does. */
  set offered(offered) {
    $("attach-label").hidden = !offered;
    this.#draw();
  }

  get #going() {
    return $("attach-label").hidden ? [] : this.#blocks;
  }

  clear() {
    this.#blocks = [];
    this.#draw();
  }

  /** The content of a message with this text; null if there is nothing to say. */
  with(text) {
    if (!this.#going.length) return text.trim() ? text : null;
    return [...(text.trim() ? [{ type: "text", text }] : []), ...this.#going.map(({ block }) => block)];
  }

  #over(event) {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault(); // else the browser leaves for the file
  }

  #offered(event, data) {
    if (!data.files.length) return;
    const takes = !$("attach-label").hidden;
    const text = data.getData("text/plain");
    const isDrop = event.type === "drop";
    if (!isDrop && text && (!takes || data.types.includes("text/html"))) return; // cells of a table are a picture, too
    event.preventDefault(); // for what is dropped the browser would leave the page
    if (isDrop && text && !/^\w+:\S*$/.test(text)) this.#write(text); // a picture of a page comes with its address
    if (takes) this.#take([...data.files]);
    else this.say("This chain takes no files: nothing was attached.");
  }

  #write(text) {
    const box = $("text");
    box.setRangeText(text, box.selectionStart, box.selectionEnd, "end");
    box.dispatchEvent(new Event("input"));
    box.focus();
  }

  async #take(files) {
    const faults = new Set(); // all are told at once: a notice takes the place of the one before
    for (const file of files) {
      try {
        if (this.#blocks.length === AT_MOST) throw new Error(`At most ${AT_MOST} files go with one message.`);
        this.#blocks.push({ name: file.name, block: await blockOf(file) });
      } catch (error) {
        faults.add(error.message);
      }
    }
    if (faults.size) this.say([...faults].join(" "));
    this.#draw();
    $("text").focus();
  }

  #draw() {
    $("text").required = this.#going.length === 0;
    $("attached").hidden = this.#going.length === 0;
    $("attached").replaceChildren(...this.#blocks.map((one) => this.#item(one)));
  }

  #item(one) {
    const item = document.createElement("li");
    if (one.block.image_url) item.append(Object.assign(new Image(), { src: one.block.image_url.url, alt: "" }));
    const remove = Object.assign(document.createElement("button"), {
      type: "button",
      className: "icon",
      textContent: "✕",
    });
    remove.setAttribute("aria-label", `Remove ${one.name}`);
    remove.onclick = () => {
      this.#blocks = this.#blocks.filter((other) => other !== one);
      this.#draw();
      $("text").focus();
    };
    item.append(Object.assign(document.createElement("span"), { dir: "auto", textContent: one.name }), remove);
    return item;
  }
}

async function blockOf(file) {
  if (PICTURES.includes(file.type)) {
    if (file.size > PICTURE_BYTES) throw new Error(`${file.name} is too large: a picture has at most 2 MB.`);
    return { type: "image_url", image_url: { url: `data:${file.type};base64,${await base64(file)}` } };
  }
  if (file.size > TEXT_BYTES) throw new Error(`${file.name} is too large: a text file has at most 200 kB.`);
  const text = await textOf(file);
  const fence = "`".repeat(Math.max(3, ...[...text.matchAll(/`+/g)].map(([run]) => run.length + 1)));
  return { type: "text", text: `${file.name}\n${fence}\n${text}\n${fence}` };
}

async function textOf(file) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is neither a picture (PNG, JPEG, GIF, WebP) nor a text file.`);
  }
}
