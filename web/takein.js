// Conversations that come in from files: of this server, of ChatGPT, open-webui, LibreChat, LangChain.

import { newId } from "./client.js";
import { say } from "./notes.js";

/** Takes files in, with a word on how far it is; `done(id)` is told the last conversation that came. */
export async function takeIn(api, files, done) {
  const report = { here: 0, failed: 0, leftOut: 0, notes: 0, why: "" };
  let [last, place] = [null, 0];
  for (const file of files) {
    for await (const conversation of conversationsIn(file)) {
      if (++place > 1) say(`Importing: conversation ${place}…`, { ms: 60_000 });
      try {
        if (isNotes(conversation)) {
          await addNotes(api, conversation.notes, report);
          continue;
        }
        last = await one(api, conversation, report);
        report.here++;
      } catch (error) {
        if (error.status !== 422 && error.status !== 413) throw error;
        report.failed++;
        report.why = error.message;
      }
    }
  }
  if (report.here === 0 && report.notes === 0) throw new Error(report.why || "There is no conversation in this file.");
  say(told(report), { ms: 10_000 });
  if (last !== null) await done(last);
}

/** What an export ends with: what is noted of its user. */
function isNotes(given) {
  return Array.isArray(given.notes) && given.turns === undefined;
}

async function addNotes(api, notes, report) {
  const { notes: known } = await api.json("GET", "memory");
  await api.json("PUT", "memory", { body: { notes: [...known, ...notes] } });
  report.notes += notes.length;
}

async function one(api, given, report) {
  let conversation = given;
  if (given.version === undefined) {
    const { conversation: own, left_out: leftOut } = await api.json("POST", "sessions/import/convert", { body: given });
    report.leftOut += leftOut;
    conversation = own;
  }
  return (await api.sessions.import({ ...conversation, session_id: newId() })).session_id;
}

function told({ here, failed, leftOut, notes, why }) {
  const parts = here === 0 ? [] : [here === 1 ? "The conversation is here." : `${here} conversations are here.`];
  if (notes) parts.push(`${notes === 1 ? "One note is" : `${notes} notes are`} here, too.`);
  if (leftOut) parts.push(`${leftOut} messages that hold no text, or are of another branch, stayed behind.`);
  if (failed) parts.push(`${failed} could not come along: ${why}`);
  return parts.join(" ");
}

/** The conversations of a file: one, a list of them, or one on each line. */
async function* conversationsIn(file) {
  if (/\.jsonl$/i.test(file.name)) return yield* eachLine(file);
  let value;
  try {
    value = JSON.parse(await file.text());
  } catch {
    return yield* eachLine(file);
  }
  const isOne = !Array.isArray(value) || (value[0]?.type !== undefined && value[0]?.data !== undefined); // a list of messages is one
  yield* isOne ? [value] : value;
}

/** However many there are: never more than one of them in memory. */
async function* eachLine(file) {
  const reader = file.stream().pipeThrough(new TextDecoderStream()).getReader();
  let pieces = [];
  for (;;) {
    const { done, value = "" } = await reader.read();
    const [end, ...lines] = value.split("\n");
    pieces.push(end);
    for (const start of done ? [""] : lines) {
      yield* parsed(pieces.join(""), file.name);
      pieces = [start];
    }
    if (done) return;
  }
}

function parsed(line, name) {
  try {
    return line.trim() ? [JSON.parse(line)] : [];
  } catch {
    throw new Error(`${name} is not a file of conversations.`);
  }
}
