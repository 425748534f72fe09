// ------------------------------------------------------------------------------------------------
// Images: how they are loaded, and how they are shown by window, level, zoom and place.

const pictures = new Map(); // name → promise of { width, height, grey }, of this item and the next

function picture(name) {
  if (!pictures.has(name)) pictures.set(name, decoded(name));
  return pictures.get(name);
}

async function decoded(name) {
  const text = study.images[name] ?? await beside(name), image = new Image();
  const arrived = new Promise((done, failed) => { image.onload = done; image.onerror = failed; });
  image.src = `data:image/png;base64,${text}`;
  try { await arrived; } catch { throw new Error(`${words.broken} ${name}`); }
  const { width, height } = image, pen = new OffscreenCanvas(width, height).getContext("2d");
  pen.drawImage(image, 0, 0);
  const { data } = pen.getImageData(0, 0, width, height);
  return { width, height, grey: Uint8Array.from({ length: width * height }, (_, i) => data[4 * i]) };
}

// A file of the folder: a page may not read another file's bytes, but a style sheet's values.
async function beside(name) {
  const link = document.createElement("link");
  Object.assign(link, { rel: "stylesheet", href: `images/${name}.css` });
  const arrived = new Promise((done, failed) => { link.onload = done; link.onerror = failed; });
  document.head.append(link);
  let text = "";
  try {
    await arrived;
    const values = getComputedStyle(element("study"));
    for (let k = 0, part; (part = values.getPropertyValue(`--${name}-${k}`)); k++) text += part.trim().slice(1, -1);
    text = atob(text);
  } catch { throw new Error(`${words.broken} images/${name}.css`); } finally { link.remove(); }
  if (sha256(Uint8Array.from(text, (c) => c.charCodeAt(0))) !== study.sha256[name]) {
    throw new Error(`${words.changed} images/${name}.css`);
  }
  return btoa(text);
}

// Of all images of an item alike: the pair is moved and windowed together. `scale` is screen pixels
// for a pixel of the image, null to fit; x and y move the middle, in screen pixels.
const plain = { window: 255, level: 127.5, scale: null, x: 0, y: 0, invert: false };
let view = { ...plain, pan: false }, frames = [];

// Without interpolation every pixel must become a square of the same size, so that a scale above 1
// is a whole number, except within a pinch.
function fitted({ canvas, width, height }) {
  const fit = Math.min(canvas.width / width, canvas.height / height);
  return fit > 1 ? Math.floor(fit) : fit;
}

const scaleNow = () => view.scale ?? (frames[0]?.width ? fitted(frames[0]) : 1);
const larger = (s) => (s < 1 ? Math.min(1, s * 1.25) : Math.max(Math.floor(s) + 1, Math.floor(s * 1.25)));
const smaller = (s) => (s <= 1 ? s / 1.25 : Math.max(1, Math.min(Math.ceil(s) - 1, Math.ceil(s / 1.25))));

// Zooms so that the point (x, y), in screen pixels from the middle of a canvas, stays in its place.
function zoom(scale, x = 0, y = 0) {
  const before = scaleNow();
  view.scale = Math.max(1 / 16, Math.min(32, scale));
  const ratio = view.scale / before;
  view.x = x - (x - view.x) * ratio;
  view.y = y - (y - view.y) * ratio;
}

function grey(window, level) {
  view.window = Math.max(4, Math.min(1020, window));
  view.level = Math.max(0, Math.min(255, level));
}

function move(x, y) {
  const [first] = frames, scale = scaleNow();
  const clamp = (v, most) => Math.max(-most, Math.min(most, v)); // some of it stays visible
  view.x = clamp(view.x + x, (first.width * scale + first.canvas.width) / 2 - 32);
  view.y = clamp(view.y + y, (first.height * scale + first.canvas.height) / 2 - 32);
}

function paint() {
  const table = Uint8ClampedArray.from({ length: 256 }, (_, v) => {
    const out = Math.max(0, Math.min(255, ((v - view.level) / view.window + 0.5) * 255));
    return view.invert ? 255 - out : out;
  });
  for (const frame of frames) {
    if (!frame.grey) continue;
    const { canvas, width, height } = frame;
    const sheet = frame.sheet ??= new OffscreenCanvas(width, height), ink = sheet.getContext("2d");
    const data = frame.data ??= ink.createImageData(width, height);
    for (let i = 0; i < frame.grey.length; i++) {
      data.data[4 * i] = data.data[4 * i + 1] = data.data[4 * i + 2] = table[frame.grey[i]];
      data.data[4 * i + 3] = 255;
    }
    ink.putImageData(data, 0, 0);
    canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
    canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
    const pen = canvas.getContext("2d"), scale = scaleNow(), w = width * scale, h = height * scale;
    pen.imageSmoothingEnabled = scale < 1;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(sheet, Math.round((canvas.width - w) / 2 + view.x), Math.round((canvas.height - h) / 2 + view.y), w, h);
  }
  for (const name of ["pan", "invert"]) {
    document.querySelector(`[data-tool=${name}]`).setAttribute("aria-pressed", view[name]);
  }
  element("values").textContent =
    `${words.window} ${Math.round(view.window)} · ${words.level} ${Math.round(view.level)} · ${Math.round(100 * scaleNow())}%`;
}

const tools = {
  "zoom-in": () => zoom(larger(scaleNow())),
  "zoom-out": () => zoom(smaller(scaleNow())),
  pan: () => { view.pan = !view.pan; },
  invert: () => { view.invert = !view.invert; },
  reset: () => { view = { ...plain, pan: false }; },
};

function use(tool) { tools[tool](); paint(); }

// ------------------------------------------------------------------------------------------------
// Mouse, pen and fingers

const touching = new Map(); // pointer → [x, y], in screen pixels from the middle of its canvas

function place(event) {
  const { left, top, width, height } = event.currentTarget.getBoundingClientRect();
  return [(event.clientX - left - width / 2) * devicePixelRatio, (event.clientY - top - height / 2) * devicePixelRatio];
}

function down(event) {
  event.currentTarget.setPointerCapture(event.pointerId);
  touching.set(event.pointerId, place(event));
}

function drag(event) {
  const last = touching.get(event.pointerId);
  if (!last || !frames.every((frame) => frame.grey)) return;
  const now = place(event), x = now[0] - last[0], y = now[1] - last[1];
  if (touching.size === 2) {
    const [other] = [...touching].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const apart = (at) => Math.max(1, Math.hypot(at[0] - other[0], at[1] - other[1]));
    zoom(scaleNow() * apart(now) / apart(last), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    move(x / 2, y / 2); // the middle of the two fingers
  } else if (touching.size === 1) {
    if (view.pan || event.shiftKey || event.buttons & 6) move(x, y);
    else grey(view.window + x / devicePixelRatio, view.level + y / devicePixelRatio / 2);
  }
  touching.set(event.pointerId, now);
  paint();
}

function up(event) {
  touching.delete(event.pointerId);
  if (view.scale > 1) view.scale = Math.round(view.scale);
  paint();
}

function canvasOf(label) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.onpointerdown = down;
  canvas.onpointermove = drag;
  canvas.onpointerup = canvas.onpointercancel = up;
  canvas.oncontextmenu = (event) => event.preventDefault();
  canvas.onwheel = (event) => {
    event.preventDefault();
    zoom((event.deltaY < 0 ? larger : smaller)(scaleNow()), ...place(event));
    paint();
  };
  return canvas;
}

// Shows images from the left; the promise ends when all are on the screen, or with why they are not.
function display(names, labels) {
  view = { ...plain, pan: false };
  touching.clear();
  frames = names.map((_, n) => ({ canvas: canvasOf(labels[n]) }));
  element("views").replaceChildren(...frames.map((frame) => frame.canvas));
  const now = frames;
  return Promise.all(names.map(picture)).then((found) => {
    found.forEach((one, n) => Object.assign(now[n], one));
    if (frames === now) paint();
    return frames === now;
  });
}
addEventListener("resize", paint);
