// ------------------------------------------------------------------------------------------------
// Screens: welcome, check of the screen, the task of each phase, reading, and rest (pause, end).

const screens = ["welcome", "check", "task", "reading", "rest"];
let introduced = ""; // phase of which the task was shown
let given = null, waiting = null, startedAt = NaN; // NaN: no image is on the screen, no time counts

function go(name) {
  for (const other of screens) element(other).hidden = other !== name;
  element("loading").hidden = !["welcome", "rest"].includes(name);
  document.body.classList.toggle("full", name === "reading");
  element(name).querySelector("h2").focus();
}

const current = () => study.items[state.answers.length];
const shown = () => frames.length > 0 && frames.every((frame) => frame.grey);

function start() {
  if (Number.isNaN(startedAt) && !element("reading").hidden && !document.hidden && !waiting && shown()) {
    startedAt = performance.now();
  }
}

function hold() {
  if (!Number.isNaN(startedAt)) state.spent += performance.now() - startedAt;
  startedAt = NaN;
}

// The next thing to see; `resting` is true where the reader comes back in the middle of a phase.
function forward(resting = false) {
  const item = current(), last = study.items[state.answers.length - 1];
  if (!Object.keys(state.about).length) return go("welcome");
  if (!item) return rest(words.finished, words.finished_text);
  if (resting && last?.phase === item.phase) {
    introduced = item.phase;
    return rest(words.paused, words.pause_text);
  }
  if (introduced !== item.phase) return introduce(item.phase);
  ask(item);
}

function introduce(phase) {
  element("task_title").textContent = words[phase];
  const question = phase === "diagnosis" ? "" : `${words[`${study.modality}_task`]} `;
  element("task_text").textContent = question + words[`${phase}_task`];
  for (const line of document.querySelectorAll("[data-for]")) {
    line.hidden = !line.dataset.for.split(" ").includes(phase === "diagnosis" ? phase : study.modality);
  }
  go("task");
}

function ask(item) {
  given = { side: "", score: 0, abnormal: null, findings: [] };
  waiting = null;
  startedAt = NaN;
  element("feedback").hidden = true;
  const phase = study.items.filter((one) => one.phase === item.phase);
  element("count").textContent = `${words[item.phase]} · ${phase.indexOf(item) + 1} ${words.of} ${phase.length}`;
  element("bar").max = study.items.length;
  element("bar").value = item.item - 1;
  element("answers").replaceChildren(...buttons(item).map(buttonOf));
  go("reading");
  const labels = item.images.length > 1 ? [words.left_image, words.right_image] : [words.image];
  const next = study.items[item.item]?.images ?? [];
  for (const name of pictures.keys()) if (![...item.images, ...next].includes(name)) pictures.delete(name);
  display(item.images, labels).then(
    (still) => {
      if (!still) return;
      start();
      mark();
      next.forEach((name) => picture(name).catch(() => {})); // an error is shown with its item
    },
    (error) => warn(error.message));
  mark();
}

// ------------------------------------------------------------------------------------------------
// Answers

const letters = "bcdefghjkloqs"; // no letter of a display key

function buttons(item) {
  const confirm = { kind: "next", label: words.next };
  if (item.phase === "diagnosis") {
    const findings = study.diagnosis.slice(1).map((value, n) =>
      ({ kind: "finding", value, key: letters[n], label: words[`finding_${value.split(":")[1]}`] }));
    return [{ kind: "abnormal", value: 0, key: "n", label: words.normal },
      { kind: "abnormal", value: 1, key: "a", label: words.abnormal }, ...findings, confirm];
  }
  const sides = pairs ? [{ kind: "side", value: "left", cap: "←", label: words.left },
    { kind: "side", value: "right", cap: "→", label: words.right }] : [];
  const scores = [1, 2, 3, 4, 5].map((value) =>
    ({ kind: "score", value, key: String(value), label: words[`${pairs ? "sure" : "score"}_${value}`] }));
  return [...sides, ...scores, confirm];
}

function buttonOf({ kind, value, key, cap = key, label }) {
  const button = document.createElement("button");
  Object.assign(button.dataset, { kind, value, key: key ?? "" });
  if (cap) {
    const shown = document.createElement("kbd");
    shown.textContent = cap;
    button.append(shown, " ");
  }
  button.append(label);
  button.onclick = (event) => {
    if (event.detail) button.blur(); // after a click of the mouse Enter confirms
    if (kind === "next") next(); else choose(kind, value);
  };
  return button;
}

function choose(kind, value) {
  if (waiting || blocked) return;
  if (kind === "finding") {
    const { findings } = given;
    given.findings = findings.includes(value) ? findings.filter((one) => one !== value) : [...findings, value];
    given.abnormal = given.findings.length ? 1 : given.abnormal;
  } else given[kind] = value;
  if (kind === "abnormal" && !value) given.findings = [];
  mark();
}

function complete() {
  if (blocked || !current() || !shown()) return false;
  return current().phase === "diagnosis" ? given.abnormal !== null : Boolean(given.score && (!pairs || given.side));
}

function mark() {
  for (const button of element("answers").querySelectorAll("button")) {
    const { kind, value } = button.dataset;
    if (kind === "next") button.disabled = !complete();
    else {
      const chosen = kind === "finding" ? given.findings.includes(value) : String(given[kind]) === value;
      button.setAttribute("aria-pressed", chosen);
    }
  }
  frames.forEach(({ canvas }, n) => canvas.classList.toggle("chosen", given.side === ["left", "right"][n]));
}

function next() {
  if (!complete()) return;
  const item = current();
  if (!waiting) {
    hold();
    const { abnormal, findings, score, side } = given;
    waiting = { item: item.item, case: item.case, phase: item.phase, repeat: item.repeat,
      seconds: Math.round(state.spent / 100) / 10,
      ...(item.phase === "diagnosis" ? { abnormal, findings } : { score, side }) };
    if (item.phase === "training") {
      element("feedback").textContent = `${words[item.feedback]} ${words.confirm_to_go_on}`;
      element("feedback").hidden = false;
      return;
    }
  }
  state.answers.push(waiting);
  state.spent = 0;
  waiting = null;
  keep();
  forward();
}

// ------------------------------------------------------------------------------------------------
// Pause, end, and what comes before the first item

function rest(title, text) {
  element("resting").textContent = title;
  element("rest_text").textContent = text;
  element("done").textContent = `${state.answers.length} ${words.of} ${study.items.length}`;
  element("resume").hidden = !current();
  go("rest");
  if (current()) element("resume").focus();
}

function pause() {
  hold();
  keep();
  rest(words.paused, words.pause_text);
}

function resume() {
  if (blocked) return;
  if (!element("views").children.length || introduced !== current().phase) return forward();
  go("reading");
  paint();
  start();
}

function examine() { // from the welcome to the check of the screen
  if (element("years").value === "" || !element("years").checkValidity()) return warn(words.incomplete);
  warn("");
  element("screen_size").textContent = `${screen.width} × ${screen.height} × ${devicePixelRatio}`;
  go("check");
}

function accept() {
  const asked = [...document.querySelectorAll("#check select")];
  if (asked.some((one) => !one.value)) return warn(words.incomplete);
  warn("");
  state.about = { experience_years: element("years").value,
    ...Object.fromEntries(asked.map((one) => [one.id, one.value])),
    screen: `${screen.width}x${screen.height}@${devicePixelRatio}` };
  keep();
  forward();
}

const clicks = {
  welcome_done: examine, check_done: accept, pause, resume, save,
  begin: () => { introduced = current().phase; forward(); },
  export: () => download(`answers-${study.reader}.csv`, "text/csv", csv(state)),
};
for (const [id, click] of Object.entries(clicks)) element(id).onclick = click;
for (const button of document.querySelectorAll("[data-tool]")) {
  button.onclick = (event) => { if (event.detail) button.blur(); use(button.dataset.tool); };
}
element("load").onchange = async (event) => {
  const refused = blocked ? words.elsewhere : take(await event.target.files[0].text());
  event.target.value = "";
  warn(refused);
  if (!refused) { element("views").replaceChildren(); forward(true); }
};

const arrows = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

function press(event) { // true if the key was one of ours
  const { key, shiftKey } = event;
  const answer = [...element("answers").children].find((one) => one.dataset.key && one.dataset.key === key);
  if (answer) { choose(answer.dataset.kind, answer.dataset.kind === "finding" ? answer.dataset.value : Number(answer.dataset.value)); return true; }
  if (key === "Enter") { if (event.target.tagName === "BUTTON") return false; next(); return true; }
  if (key === "p") { pause(); return true; }
  if (!shown()) return false;
  if (key in arrows) {
    const [x, y] = arrows[key];
    if (view.pan) move(-32 * x, -32 * y);
    else if (y && shiftKey) grey(view.window - 10 * y, view.level);
    else if (y) grey(view.window, view.level + 5 * y);
    else if (pairs && current().phase !== "diagnosis") { choose("side", x < 0 ? "left" : "right"); return true; }
    else return false;
  } else if (key === "[" || key === "]") grey(view.window + (key === "]" ? 10 : -10), view.level);
  else {
    const tool = { "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", i: "invert", r: "reset", m: "pan" }[key];
    if (!tool) return false;
    tools[tool]();
  }
  paint();
  return true;
}

addEventListener("keydown", (event) => {
  if (element("reading").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.repeat && event.key === "Enter") return;
  if (press(event)) event.preventDefault();
});
document.addEventListener("visibilitychange", () => { if (document.hidden) hold(); else start(); });
addEventListener("pagehide", () => { hold(); if (state.answers.length || state.spent) keep(); });

const before = stored();
if (before) state = before;
keep(); // says at once if this browser stores nothing
forward(true);
