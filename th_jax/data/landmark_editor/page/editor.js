// The page on which landmarks are placed: drags points, asks the server for the others, keeps a history, and saves.
"use strict";

const REACH = 14; // pixels on the screen within which a press takes a point
const element = (id) => document.getElementById(id);
const canvas = element("face");
const context = canvas.getContext("2d");
const photo = new Image();

let face = null; // size, contours and points to begin with
let state = null; // { points: [[x, y]], placed: { number: true } }
let past = [], future = [];
let selected = 30;
let dragged = null; // the number of the point that is being dragged
let view = { scale: 1, x: 0, y: 0 }; // from the photo's pixels to the screen's
let asked = 0; // the number of the last proposal that was asked for
let unsaved = false;
let answer = Promise.resolve(); // of the last proposal that was asked for

const copy = (value) => JSON.parse(JSON.stringify(value));
const say = (text) => { element("message").textContent = text; };

async function post(path, body) {
  const reply = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error);
  return content;
}

// ---- what is shown

function fit() {
  const scale = Math.min(canvas.width / face.width, canvas.height / face.height);
  view = { scale, x: (canvas.width - scale * face.width) / 2, y: (canvas.height - scale * face.height) / 2 };
}

function zoom(factor, [x, y]) {
  const [left, top] = toScreen([x, y]);
  view.scale = Math.min(Math.max(view.scale * factor, 0.05), 40);
  view.x = left - x * view.scale;
  view.y = top - y * view.scale;
  draw();
}

const toScreen = ([x, y]) => [view.x + x * view.scale, view.y + y * view.scale];
const toPhoto = (x, y) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

function draw() {
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = view.scale < 4;
  context.drawImage(photo, view.x, view.y, face.width * view.scale, face.height * view.scale);
  for (const { points, closed } of face.contours) {
    context.beginPath();
    for (const number of closed ? [...points, points[0]] : points) context.lineTo(...toScreen(state.points[number]));
    for (const [style, width] of [["rgb(0 0 0 / .6)", 3], ["rgb(255 255 255 / .9)", 1]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.stroke();
    }
  }
  state.points.forEach((point, number) => {
    context.beginPath();
    context.arc(...toScreen(point), number === selected ? 7 : 4, 0, 2 * Math.PI);
    context.fillStyle = state.placed[number] ? "#1d4f91" : "rgb(255 255 255 / .8)";
    context.fill();
    context.strokeStyle = number === selected ? "#d40000" : "#1a1a1a";
    context.lineWidth = number === selected ? 2.5 : 1;
    context.stroke();
  });
  element("undo").disabled = !past.length;
  element("redo").disabled = !future.length;
  element("release").disabled = !state.placed[selected];
}

// ---- changes, with their history

function change(act) {
  past.push(copy(state));
  future = [];
  act();
  unsaved = true;
  draw();
}

function travel(from, to) {
  if (!from.length) return;
  asked += 1; // an answer on its way belongs to another moment
  to.push(copy(state));
  state = from.pop();
  unsaved = true;
  draw();
}

function propose() {
  answer = proposed();
}

async function proposed() {
  const placed = {};
  for (const number of Object.keys(state.placed)) placed[number] = state.points[number];
  const mine = (asked += 1);
  try {
    const { points } = await post("propose", { placed });
    if (mine !== asked || dragged !== null) return;
    state.points = points.map((point, number) => (state.placed[number] ? state.points[number] : point));
    say(`point ${selected}; ${Object.keys(state.placed).length} of 68 placed`);
  } catch (error) {
    say(error.message);
  }
  draw();
}

function nudge(dx, dy) {
  change(() => {
    const [x, y] = state.points[selected];
    state.points[selected] = [x + dx, y + dy];
    state.placed[selected] = true;
  });
  propose();
}

function release() {
  if (!state.placed[selected]) return;
  change(() => { delete state.placed[selected]; });
  propose();
}

async function save() {
  await answer; // what is saved is what is shown
  try {
    const { saved } = await post("save", { landmarks: state.points });
    unsaved = false;
    say(`saved ${saved}`);
  } catch (error) {
    say(error.message);
  }
}

// ---- pointer and keys

function pressed(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top].map((value) => value * devicePixelRatio);
}

canvas.addEventListener("pointerdown", (event) => {
  const [x, y] = pressed(event);
  let nearest = null, least = REACH * devicePixelRatio;
  state.points.forEach((point, number) => {
    const [px, py] = toScreen(point);
    const distance = Math.hypot(px - x, py - y);
    if (distance < least) [nearest, least] = [number, distance];
  });
  if (nearest === null) return;
  selected = dragged = nearest;
  canvas.setPointerCapture(event.pointerId);
  change(() => { state.placed[nearest] = true; });
});

canvas.addEventListener("pointermove", (event) => {
  if (dragged === null) return;
  state.points[dragged] = toPhoto(...pressed(event));
  draw();
});

canvas.addEventListener("pointerup", () => {
  if (dragged === null) return;
  dragged = null;
  propose();
});

canvas.addEventListener("pointercancel", () => { dragged = null; });

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, toPhoto(...pressed(event)));
}, { passive: false });

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  const control = event.ctrlKey || event.metaKey, key = event.key;
  const keys = {
    Tab: () => { selected = (selected + (event.shiftKey ? 67 : 1)) % 68; say(`point ${selected}`); draw(); },
    u: release,
    "+": () => zoom(1.25, state.points[selected]),
    "-": () => zoom(0.8, state.points[selected]),
    0: () => { fit(); draw(); },
    Escape: () => element("save").focus(),
  };
  const controls = {
    z: () => (event.shiftKey ? travel(future, past) : travel(past, future)),
    y: () => travel(future, past),
    s: save,
  };
  if (ARROWS[key]) {
    const step = event.shiftKey ? 10 : 1;
    nudge(...ARROWS[key].map((value) => value * step));
  } else if (control && controls[key.toLowerCase()]) controls[key.toLowerCase()]();
  else if (!control && keys[key]) keys[key]();
  else return;
  event.preventDefault();
});

element("undo").addEventListener("click", () => travel(past, future));
element("redo").addEventListener("click", () => travel(future, past));
element("release").addEventListener("click", release);
element("save").addEventListener("click", save);
addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });

function resize() {
  const box = canvas.getBoundingClientRect();
  canvas.width = Math.round(box.width * devicePixelRatio);
  canvas.height = Math.round(box.height * devicePixelRatio);
  fit();
  draw();
}

async function begin() {
  face = await (await fetch("face")).json();
  const placed = {};
  if (face.placed) face.points.forEach((_, number) => { placed[number] = true; });
  state = { points: face.points, placed };
  photo.src = "image.png";
  await photo.decode();
  addEventListener("resize", resize);
  resize();
  canvas.focus();
  say(face.placed ? "correct the points that were found, then save" : "place a point on each eye, the nose and the mouth to begin");
}

begin();
