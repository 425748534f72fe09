// ------------------------------------------------------------------------------------------------
// Where answers are kept: this browser, and files that the reader saves and loads.
//
// `state` is what this window knows. It is `unsaved` while it has answers that are neither in the
// browser nor in a file, and `blocked` if another window of this reader has other answers.
let state = fresh(), unsaved = false, blocked = false;

const element = (id) => document.getElementById(id);

function warn(text) {
  element("alert").textContent = text;
  element("alert").hidden = !text;
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const begins = (long, short) => same(long.answers.slice(0, short.answers.length), short.answers);

// What the browser holds of this reader, null if nothing. What is damaged is set aside, for it may
// hold answers; undefined if there is no room for that, and then nothing may be written.
function stored() {
  let text = null;
  try { text = localStorage.getItem(slot); } catch { return null; }
  if (text === null) return null;
  try {
    const found = JSON.parse(text);
    if (valid(found)) return found;
  } catch { /* set aside */ }
  try {
    localStorage.setItem(`${slot}:damaged:${Date.now()}`, text);
    localStorage.removeItem(slot);
    warn(words.damaged);
    return null;
  } catch { return undefined; }
}

// Keeps `state` in the browser, unless another window went on with other answers.
function keep() {
  if (blocked) return;
  const there = stored();
  if (there && !begins(state, there)) { stop(); return; }
  try {
    if (there === undefined) throw new Error("damaged");
    localStorage.setItem(slot, JSON.stringify(state));
    if (element("alert").textContent === words.not_stored) warn("");
    unsaved = false;
  } catch {
    unsaved = true;
    warn(words.not_stored);
  }
}

// Another window went on: what it does not have is still here, to be downloaded.
function stop() {
  const there = stored();
  unsaved = state.answers.length > 0 && !(there && begins(there, state));
  blocked = true;
  warn(words.elsewhere);
}

addEventListener("storage", (event) => {
  if (event.key !== slot || event.newValue === null) return;
  let found = null;
  try { found = JSON.parse(event.newValue); } catch { return; }
  if (!same(found.answers, state.answers)) stop();
});
addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = `data:${type};charset=utf-8,` + encodeURIComponent(text);
  link.download = name;
  link.click();
  unsaved = false;
}

function save() {
  const text = JSON.stringify(state);
  download(`progress-${study.reader}.json`, "application/json", JSON.stringify({ progress: state, sha256: textSha256(text) }));
}

// Takes the progress of a file; returns why it does not.
function take(text) {
  let found = null;
  try { found = JSON.parse(text); } catch { return words.other_file; }
  if (!found || !found.progress || found.progress.slot !== slot) return words.other_file;
  if (textSha256(JSON.stringify(found.progress)) !== found.sha256 || !valid(found.progress)) return words.edited_file;
  if (!begins(found.progress, state)) {
    return begins(state, found.progress) ? words.older_file : words.differing_file;
  }
  state = found.progress;
  keep();
  return "";
}
