// A long text in pieces that can be rendered in any order: each looks by itself as it would within the whole.

const COLOURED = 20_000; // characters of code: as in api/page_code.py: longer code has no colours, and needs no server
const FORMULA = 4000; // of a formula, as in api/page_math.py, and more
const FENCE = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})[ \t]*(\S*)/;
const MATH = /^ {0,3}(\$\$|\\\[)/;
const LIST = /^ {0,3}(?:[-*+]|\d{1,9}[.)])(?: |$)/;
const HEADING = /^#{1,6}(?:[ \t]|$)/;
const RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*$/; // below the head of a table, or with a | behind it
const [ANY, ITEM, BETWEEN] = [0, 1, 2]; // where it may be cut: at a line, before an item or a row, between blocks

/**
 * `[{text, source, html}]`: `text` is a part of the whole, `source` the Markdown that it is rendered from, which begins
 * with the head of the table whose rows go on there; `html` is there if nothing is to be rendered. A `text` is at most
 * `most` long, unless it is code.
 */
export function cut(text, most) {
  const pieces = [];
  let start = { at: 0, head: "" };
  let found = []; // the last place of each kind
  const end = (place) => {
    const part = text.slice(start.at, place.at);
    if (part) pieces.push({ text: part, source: start.head + part, html: start.html });
    found = found.map((one) => (one?.at > place.at ? one : undefined));
    start = place;
  };
  for (const place of places(text, most)) {
    for (let best; place.at - start.at > most && (best = found.findLast(Boolean));) end(best);
    found[place.kind] = place;
    if (start.html || place.html || place.at - start.at > most) end(place);
  }
  end({ at: text.length });
  return pieces;
}

/** All places where it may be cut, in order, and its end. */
function* places(text, most) {
  let [before, head, indent] = ["", "", 0]; // the line before; the head of a table; where a list's items stand
  let at = 0;
  while (at < text.length) {
    const line = lineAt(text, at);
    const block = blockAt(text, at, line, indent);
    if (block) {
      yield { at, kind: BETWEEN, head: "", html: block.html };
      yield { at: (at = block.end), kind: BETWEEN, head: "" };
      [before, head, indent] = ["", "", 0];
      continue;
    }
    const item = LIST.exec(line);
    const kind = kindOf(line, before, item, indent, head);
    if (kind === BETWEEN) [head, indent] = ["", 0];
    if (item) indent = item[0].length;
    if (!line.trim()) head = "";
    const isRule = !head && before.includes("|") && RULE.test(line.replace(/\|[ \t]*$/, ""));
    if (!isRule) yield { at, kind, head };
    for (let next = at + most; next < at + line.length; next += most) yield { at: next, kind: ANY, head: "" };
    if (isRule) head = `${before}\n${line}\n`;
    before = line;
    at += line.length + 1;
  }
  yield { at: text.length, kind: BETWEEN, head: "" };
}

function kindOf(line, before, item, indent, head) {
  if (HEADING.test(line)) return BETWEEN;
  if (/^\S/.test(line) && !before.trim() && !(item && indent)) return BETWEEN;
  return (item && !line.startsWith(" ")) || head ? ITEM : ANY;
}

/** Code or a formula that begins with this line, and is no part of a list's item: where it ends. */
function blockAt(text, at, line, indent) {
  const fence = FENCE.exec(line);
  if (fence && !(indent && fence[1].length >= indent)) return codeAt(text, at, fence);
  const opening = indent ? null : MATH.exec(line);
  if (!opening) return null;
  const closing = opening[1] === "$$" ? "$$" : "\\]";
  const from = at + opening[0].length;
  const length = text.slice(from, from + FORMULA).indexOf(closing);
  if (length < 0 || lineAt(text, from + length + closing.length).trim()) return null;
  return { end: afterLine(text, from + length) };
}

function codeAt(text, at, [, , marks, language]) {
  const from = afterLine(text, at);
  const closing = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`, "gm");
  closing.lastIndex = from;
  const closed = closing.exec(text)?.index ?? text.length;
  const end = afterLine(text, closed);
  if (closed - from <= COLOURED) return { end };
  const code = escaped(text.slice(from, closed));
  return { end, html: `<pre data-language="${escaped(language.slice(0, 30))}"><code>${code}</code></pre>` };
}

const escaped = (text) => text.replace(/[&<>"]/g, (one) => `&#${one.charCodeAt(0)};`);

/** What stands from there to the end of the line. */
function lineAt(text, at) {
  const end = text.indexOf("\n", at);
  return text.slice(at, end < 0 ? undefined : end);
}

function afterLine(text, at) {
  const end = text.indexOf("\n", at);
  return end < 0 ? text.length : end + 1;
}
