"use strict";
// What a reader did: progress, its checks, and the answers as CSV. Nothing here touches the page.
const holder = document.getElementById("study").dataset;
const study = JSON.parse(holder.study), words = JSON.parse(holder.strings);
const pairs = study.modality === "pairs";
// Study, key and reader: files of two readers, or of two designs, share one browser.
const slot = `rfxray-reader:${study.study}:${study.key_sha256}:${study.reader}`;
const fresh = () => ({ slot, about: {}, answers: [], spent: 0 });

const constants = (() => { // FIPS 180-4: fractions of the roots of the first 64 primes
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const part = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  return [primes.map((p) => part(Math.cbrt(p))), primes.slice(0, 8).map((p) => part(Math.sqrt(p)))];
})();

function sha256(bytes) { // crypto.subtle is absent in some browsers for file:
  const padded = new Uint8Array(((bytes.length + 72) >> 6) << 6), view = new DataView(padded.buffer);
  padded.set(bytes);
  padded[bytes.length] = 128;
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, (bytes.length << 3) >>> 0);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  const [k, start] = constants, w = new Int32Array(64), hash = Int32Array.from(start);
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
      const s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i++) {
      const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25), s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((x, i) => { hash[i] += x; });
  }
  return [...hash].map((x) => (x >>> 0).toString(16).padStart(8, "0")).join("");
}

const textSha256 = (text) => sha256(new TextEncoder().encode(text));

// Whether something read from a browser or a file is progress of this reader in this study.
function valid(found) {
  return Boolean(found) && found.slot === slot && Array.isArray(found.answers) &&
    found.about instanceof Object && Number.isFinite(found.spent) &&
    found.answers.length <= study.items.length && found.answers.every((a, i) => {
      const { item, case: name, phase } = study.items[i];
      if (a.item !== item || a.case !== name || a.phase !== phase || !Number.isFinite(a.seconds)) return false;
      return phase === "diagnosis" ? [0, 1].includes(a.abnormal) && Array.isArray(a.findings) && a.findings.every((one) => study.diagnosis.includes(one))
        : [1, 2, 3, 4, 5].includes(a.score) && (pairs ? ["left", "right"].includes(a.side) : a.side === "");
    });
}

// Answers in long form. Each line holds the hash of the line above, so that an edit shows.
function csv(state) {
  const quote = (x) => (/[",]/.test(x) ? `"${x.replaceAll('"', '""')}"` : x);
  const row = ({ item = "", name = "", modality = study.modality, score = "", side = "", seconds = "", repeat = 0, phase }) =>
    [study.study, study.reader, item, name, modality, score, side, seconds, repeat, phase];
  const rows = Object.entries({ key_sha256: study.key_sha256, ...state.about })
    .map(([name, score]) => row({ name, score, phase: "about" }));
  for (const a of state.answers) {
    if (a.phase !== "diagnosis") { rows.push(row({ ...a, name: a.case })); continue; }
    study.diagnosis.forEach((modality, n) => {
      const score = n ? Number(a.findings.includes(modality)) : a.abnormal;
      // One time for all questions of an image, so that a sum is right.
      rows.push(row({ ...a, name: a.case, modality, score, seconds: n ? "" : a.seconds }));
    });
  }
  rows.push(row({ phase: "end" }));
  const lines = [study.columns.join(",")];
  for (const each of rows) {
    lines.push([...each, textSha256(lines.at(-1))].map((x) => quote(String(x))).join(","));
  }
  return lines.join("\n") + "\n";
}
