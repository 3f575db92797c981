// Conversations that come in from a file.

import { newId } from "./client.js";
import { say } from "./notes.js";

/** Takes files in; `done(id)` is told the last conversation that came. */
export async function takeIn(api, files, done) {
  let last = null;
  for (const file of files) {
    let conversation;
    try {
      conversation = JSON.parse(await file.text());
    } catch {
      throw new Error("This file is not a conversation that was exported as JSON.");
    }
    ({ session_id: last } = await api.sessions.import({ ...conversation, session_id: newId() }));
  }
  if (last) say(files.length === 1 ? "The conversation is here." : `${files.length} conversations are here.`);
  await done(last);
}
