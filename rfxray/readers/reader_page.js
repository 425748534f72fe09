"use strict";
const holder = document.getElementById("study").dataset;
const study = JSON.parse(holder.study), words = JSON.parse(holder.strings);
const $ = (id) => document.getElementById(id);
const pairs = study.modality === "pairs";
// Study, key and reader: files of two readers, or of two designs, share one browser.
const slot = `rfxray-reader:${study.study}:${study.key_sha256}:${study.reader}`;
const fresh = () => ({ slot, about: {}, answers: [] });
let state = fresh(), stored = true, blocked = false, unsaved = false;
let side = "", score = 0, shownAt = 0, spent = 0, waiting = null, frames = [];
let view = { window: 255, level: 127.5, zoom: 1, x: 0, y: 0, invert: false, pan: false };

// ------------------------------------------------------------------------------------------------
// Storage

function warn(text) { $("alert").textContent = text; $("alert").hidden = false; }

function peek() {
  try {
    const found = JSON.parse(localStorage.getItem(slot));
    return valid(found) ? found : null;
  } catch { return null; }
}

function keep() {
  const there = peek();
  if (there && there.answers.length >= state.answers.length && there.answers.length) {
    if (JSON.stringify(there.answers) !== JSON.stringify(state.answers)) return stop();
  }
  try {
    localStorage.setItem(slot, JSON.stringify(state));
    stored = true; unsaved = false;
  } catch { stored = false; unsaved = true; warn(words.not_stored); }
}

function stop() { blocked = true; unsaved = false; warn(words.elsewhere); }

addEventListener("storage", (event) => {
  if (event.key === slot && event.newValue !== JSON.stringify(state)) stop();
});
addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });

function valid(found) {
  return found && found.slot === slot && Array.isArray(found.answers) && found.about &&
    found.answers.length <= study.items.length &&
    found.answers.every((a, i) => a.item === study.items[i].item && a.case === study.items[i].case);
}

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = `data:${type};charset=utf-8,` + encodeURIComponent(text);
  link.download = name;
  link.click();
  unsaved = false;
}

// ------------------------------------------------------------------------------------------------
// Answers as CSV with a chain of hashes

function sha256(text) { // FIPS 180-4; crypto.subtle is absent in some browsers for file:
  const bytes = [...new TextEncoder().encode(text)], bits = bytes.length * 8;
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const part = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  const k = primes.map((p) => part(Math.cbrt(p)));
  let hash = primes.slice(0, 8).map((p) => part(Math.sqrt(p)));
  bytes.push(128);
  while (bytes.length % 64 !== 56) bytes.push(0);
  for (let i = 7; i >= 0; i--) bytes.push(Math.floor(bits / 2 ** (8 * i)) & 255);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < bytes.length; at += 64) {
    const w = [];
    for (let i = 0; i < 64; i++) {
      if (i < 16) {
        const b = bytes.slice(at + 4 * i, at + 4 * i + 4);
        w.push((b[0] << 24) | (b[1] << 16) | (b[2] << 8) | b[3]);
      } else {
        const s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
        const s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
        w.push((w[i - 16] + s0 + w[i - 7] + s1) | 0);
      }
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i++) {
      const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25), s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [a, b, c, d, e, f, g, h] = [(t1 + t2) | 0, a, b, c, (d + t1) | 0, e, f, g];
    }
    hash = [a, b, c, d, e, f, g, h].map((x, i) => (x + hash[i]) | 0);
  }
  return hash.map((x) => (x >>> 0).toString(16).padStart(8, "0")).join("");
}

function csv() {
  const quote = (x) => (/[",]/.test(x) ? `"${x.replaceAll('"', '""')}"` : x);
  const row = (item, name, value, chosen, seconds, repeat, phase) => [
    study.study, study.reader, item, name, study.modality, value, chosen, seconds, repeat, phase];
  const rows = [row("", "key_sha256", study.key_sha256, "", "", 0, "about")];
  for (const [name, value] of Object.entries(state.about)) {
    rows.push(row("", name, value, "", "", 0, "about"));
  }
  for (const a of state.answers) {
    rows.push(row(a.item, a.case, a.score, a.side, a.seconds, a.repeat, a.phase));
  }
  rows.push(row("", "", "", "", "", 0, "end"));
  const lines = [study.columns.join(",")];
  for (const each of rows) {
    lines.push([...each, sha256(lines.at(-1))].map((x) => quote(String(x))).join(","));
  }
  return lines.join("\n") + "\n";
}

// ------------------------------------------------------------------------------------------------
// Images

function load(name, canvas) {
  const image = new Image(), frame = { canvas, grey: null };
  frame.ready = new Promise((done, failed) => { image.onload = done; image.onerror = failed; });
  image.src = study.images[name];
  frame.ready = frame.ready.then(() => {
    const sheet = new OffscreenCanvas(image.width, image.height), pen = sheet.getContext("2d");
    pen.drawImage(image, 0, 0);
    frame.sheet = sheet;
    frame.data = pen.getImageData(0, 0, image.width, image.height);
    frame.grey = Uint8Array.from({ length: image.width * image.height }, (_, i) => frame.data.data[4 * i]);
  });
  return frame;
}

function paint() {
  const table = Array.from({ length: 256 }, (_, v) => {
    const out = Math.max(0, Math.min(255, ((v - view.level) / view.window + 0.5) * 255));
    return view.invert ? 255 - out : out;
  });
  for (const { canvas, grey, data, sheet } of frames) {
    if (!grey) continue;
    for (let i = 0; i < grey.length; i++) {
      data.data[4 * i] = data.data[4 * i + 1] = data.data[4 * i + 2] = table[grey[i]];
    }
    sheet.getContext("2d").putImageData(data, 0, 0);
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = canvas.clientHeight * devicePixelRatio;
    const pen = canvas.getContext("2d");
    const fit = Math.min(canvas.width / sheet.width, canvas.height / sheet.height) * view.zoom;
    pen.imageSmoothingEnabled = fit < 1;
    const w = sheet.width * fit, h = sheet.height * fit;
    pen.drawImage(sheet, (canvas.width - w) / 2 + view.x * devicePixelRatio,
      (canvas.height - h) / 2 + view.y * devicePixelRatio, w, h);
  }
}

const tools = {
  "zoom-in": () => { view.zoom = Math.min(16, view.zoom * 1.25); },
  "zoom-out": () => { view.zoom = Math.max(0.5, view.zoom / 1.25); },
  pan: () => { view.pan = !view.pan; },
  invert: () => { view.invert = !view.invert; },
  reset: () => { view = { ...view, window: 255, level: 127.5, zoom: 1, x: 0, y: 0, invert: false }; },
};

function use(tool) {
  tools[tool]();
  for (const name of ["pan", "invert"]) {
    document.querySelector(`[data-tool=${name}]`).setAttribute("aria-pressed", view[name]);
  }
  paint();
}

function drag(event) {
  if (!event.buttons) return;
  if (view.pan || event.shiftKey || event.buttons === 2) {
    view.x += event.movementX; view.y += event.movementY;
  } else {
    view.window = Math.max(8, Math.min(1000, view.window + event.movementX));
    view.level = Math.max(0, Math.min(255, view.level + event.movementY / 2));
  }
  paint();
}

// ------------------------------------------------------------------------------------------------
// Reading

function show() {
  const item = study.items[state.answers.length];
  $("start").hidden = true;
  $("reading").hidden = !item; $("rest").hidden = $("loading").hidden = Boolean(item);
  if (!item) { $("resting").textContent = words.finished; $("resume").hidden = true; return; }
  [side, score, spent, shownAt, waiting] = ["", 0, 0, NaN, null]; // NaN: not on the screen
  $("feedback").hidden = true;
  $("count").textContent = `${item.phase === "training" ? words.training + " " : ""}${item.item} / ${study.items.length}`;
  $("bar").max = study.items.length; $("bar").value = item.item - 1;
  use("reset");
  $("views").replaceChildren();
  frames = item.images.map((name, i) => {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", pairs ? words[i ? "right" : "left"] : words.image);
    canvas.onpointerdown = (event) => canvas.setPointerCapture(event.pointerId);
    canvas.onpointermove = drag;
    canvas.oncontextmenu = (event) => event.preventDefault();
    canvas.onwheel = (event) => { event.preventDefault(); use(event.deltaY < 0 ? "zoom-in" : "zoom-out"); };
    $("views").append(canvas);
    return load(name, canvas);
  });
  const now = frames;
  Promise.all(frames.map((frame) => frame.ready)).then(
    () => {
      if (frames !== now) return;
      if (!$("reading").hidden) { paint(); shownAt = performance.now(); }
      mark();
    },
    () => warn(words.broken));
  mark();
}

function mark() {
  const ready = frames.every((frame) => frame.grey) && !blocked;
  for (const button of $("answers").querySelectorAll("button")) {
    const { value, kind } = button.dataset;
    button.setAttribute("aria-pressed", kind === "side" ? side === value : score === Number(value));
    if (kind === "next") {
      button.removeAttribute("aria-pressed");
      button.disabled = !ready || !score || (pairs && !side);
    }
  }
  frames.forEach(({ canvas }, i) => canvas.classList.toggle("chosen", pairs && side === ["left", "right"][i]));
}

function next() {
  const item = study.items[state.answers.length];
  if (blocked || !item || !score || (pairs && !side) || !frames.every((frame) => frame.grey)) return;
  if (!waiting) {
    const seconds = Math.round((spent + performance.now() - shownAt) / 100) / 10;
    waiting = { item: item.item, case: item.case, score, side, seconds, repeat: item.repeat, phase: item.phase };
    if (item.phase === "training") {
      $("feedback").textContent = words[item.feedback] + " " + words.go_on;
      $("feedback").hidden = false;
      return;
    }
  }
  state.answers.push(waiting);
  keep();
  show();
}

function pause() {
  if (!Number.isNaN(shownAt)) spent += performance.now() - shownAt;
  shownAt = NaN;
  $("reading").hidden = true; $("rest").hidden = $("loading").hidden = false;
  $("resting").textContent = words.paused; $("resume").hidden = false; $("resume").focus();
}

function resume() {
  if (blocked) return;
  $("rest").hidden = $("loading").hidden = true; $("reading").hidden = false;
  if (frames.every((frame) => frame.grey)) { shownAt = performance.now(); paint(); }
}

function begin() {
  const years = $("years").value, screen = $("screen").value;
  if (years === "" || !$("years").checkValidity() || !screen) return warn(words.incomplete);
  $("alert").hidden = true;
  state.about = { experience_years: years, screen_check: screen,
    screen: `${window.screen.width}x${window.screen.height}@${devicePixelRatio}` };
  keep(); show();
}

const pieces = pairs ? [["side", "left"], ["side", "right"]] : [];
for (const [kind, value] of [...pieces, ...[1, 2, 3, 4, 5].map((n) => ["score", n]), ["next", "next"]]) {
  const button = document.createElement("button");
  Object.assign(button.dataset, { kind, value });
  button.textContent = kind === "score" ? `${value}  ${words[(pairs ? "sure_" : "score_") + value]}` : words[value];
  button.onclick = (event) => {
    if (event.detail) button.blur(); // after a click of the mouse Enter confirms
    if (kind === "next") return next();
    if (!waiting) { if (kind === "side") side = value; else score = value; }
    mark();
  };
  $("answers").append(button);
}
for (const button of document.querySelectorAll("[data-tool]")) button.onclick = () => use(button.dataset.tool);
$("begin").onclick = begin;
$("pause").onclick = pause;
$("resume").onclick = resume;
$("save").onclick = () => download(`progress-${study.reader}.json`, "application/json", JSON.stringify(state));
$("export").onclick = () => download(`answers-${study.reader}.csv`, "text/csv", csv());
$("load").onchange = async (event) => {
  let found = null;
  try { found = JSON.parse(await event.target.files[0].text()); } catch { /* refused below */ }
  if (!valid(found)) return warn(words.other_file);
  if (blocked) return;
  const start = found.answers.slice(0, state.answers.length);
  if (JSON.stringify(start) !== JSON.stringify(state.answers)) return warn(words.older_file);
  state = found; keep(); show();
};
addEventListener("keydown", (event) => {
  if ($("reading").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat && event.key === "Enter") return;
  const key = event.key;
  if (/^[1-5]$/.test(key) && !waiting) { score = Number(key); mark(); }
  else if (pairs && (key === "ArrowLeft" || key === "ArrowRight")) {
    if (!waiting) side = key === "ArrowLeft" ? "left" : "right";
    mark();
  } else if (key === "Enter" && event.target.tagName !== "BUTTON") next();
  else if (key === "+" || key === "-") use(key === "+" ? "zoom-in" : "zoom-out");
  else if (key === "i" || key === "r") use(key === "i" ? "invert" : "reset");
  else if (key === "p") pause();
  else if (key === "ArrowUp" || key === "ArrowDown") { view.level += key === "ArrowUp" ? -5 : 5; paint(); }
  else if (key === "[" || key === "]") { view.window = Math.max(8, view.window + (key === "]" ? 10 : -10)); paint(); }
  else return;
  event.preventDefault();
});
addEventListener("resize", paint);

const before = peek();
if (before) { state = before; if (Object.keys(state.about).length) show(); }
else { keep(); }
