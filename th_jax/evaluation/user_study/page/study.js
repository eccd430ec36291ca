// The user study's page: shows triplets, keeps the answers on the device, and sends them where somebody listens.
"use strict";

// Keys and touches that come sooner were meant for the triplet before.
const SETTLE_MILLISECONDS = 300;
const KEY = `user-study-${STUDY.study}`;
const element = (id) => document.getElementById(id);
const served = location.protocol.startsWith("http");

// ---- what is known of this rater: on the device, so that a reload or a flat battery loses nothing

function randomHex(bytes) {
  const values = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(values, (value) => value.toString(16).padStart(2, "0")).join("");
}

function fresh() {
  return { rater: randomHex(16), agreed: false, answers: [], settled: {} };
}

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    if (kept && kept.rater && Array.isArray(kept.answers) && kept.settled) return kept;
  } catch { /* a browser that keeps nothing, or something else under our name */ }
  return fresh();
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch { /* the answers still live as long as the page */ }
}

// Every rater has an order of their own, which their number alone decides: a reload continues in it.
function orderOf(rater) {
  let seed = 2166136261;
  for (const letter of rater) seed = Math.imul(seed ^ letter.charCodeAt(0), 16777619) >>> 0; // FNV-1a
  const random = () => { // mulberry32
    seed = (seed + 0x6d2b79f5) >>> 0;
    let value = Math.imul(seed ^ (seed >>> 15), seed | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
  };
  const order = [...STUDY.triplets];
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

let state = restore();
let order = orderOf(state.rater);

// ---- pictures: all are loaded ahead, one after the other, in the order in which they will be seen

const loaded = new Map();

async function load(triplet) {
  const image = new Image();
  image.src = `pictures/${triplet}.png`;
  await image.decode();
  return image;
}

function picture(triplet) {
  if (!loaded.has(triplet)) {
    const promise = load(triplet);
    promise.catch(() => loaded.delete(triplet)); // so that the next look tries again
    loaded.set(triplet, promise);
  }
  return loaded.get(triplet);
}

async function preload(from) {
  for (const triplet of order.slice(from)) {
    try { await picture(triplet); } catch { return; } // the one who needs it will say so
  }
}

// ---- rating

let shownAt = null; // null while nothing may be answered

function show(id) {
  for (const part of document.querySelectorAll("main")) part.hidden = part.id !== id;
}

const paint = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));

async function next() {
  shownAt = null;
  const position = state.answers.length;
  if (position >= order.length) return finish();
  let image;
  try {
    image = await picture(order[position]);
  } catch {
    return show("failure");
  }
  document.querySelectorAll(".picture canvas").forEach((canvas, side) => {
    canvas.width = canvas.height = STUDY.size; // clears it, too
    canvas.getContext("2d").drawImage(image, side * STUDY.size, 0, STUDY.size, STUDY.size, 0, 0, STUDY.size, STUDY.size);
  });
  element("progress").max = order.length;
  element("progress").value = position;
  element("count").textContent = `${position + 1} of ${order.length}`;
  show("rating");
  await paint();
  shownAt = performance.now();
}

function answer(choice) {
  if (shownAt === null) return;
  const milliseconds = Math.round(performance.now() - shownAt);
  if (milliseconds < SETTLE_MILLISECONDS) return;
  const position = state.answers.length;
  state.answers.push({ triplet: order[position], choice, milliseconds: Math.min(milliseconds, 86400000), position });
  keep();
  document.activeElement?.blur(); // a focus ring would stay on the side that was chosen last
  deliver();
  next();
}

// ---- delivery: one answer at a time, until the server says that it has it

let delivering = null;

function deliver() {
  if (!served) return Promise.resolve();
  delivering ??= post().finally(() => { delivering = null; });
  return delivering;
}

function sheet(answers) {
  return JSON.stringify({ schema: 1, study: STUDY.study, consent: STUDY.consent, rater: state.rater, answers });
}

const unsent = () => state.answers.filter((given) => !state.settled[given.triplet]);

async function post() {
  for (let waiting = unsent(); waiting.length; waiting = unsent()) {
    const given = waiting[0];
    const owner = state;
    try {
      const body = sheet([given]);
      const reply = await fetch("answers", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      // 409: another window of the same rater was first, and its answer stands.
      if (!reply.ok && reply.status !== 409) return;
    } catch {
      return; // no network: the next answer, or the end, tries again
    }
    owner.settled[given.triplet] = true;
    keep();
  }
}

async function finish() {
  show("end");
  element("send").hidden = true;
  element("another").hidden = true;
  if (served) {
    element("delivery").textContent = "Your answers are being sent…";
    await deliver();
    await deliver(); // what was answered while the first was under way
  }
  const left = unsent().length;
  if (served && left === 0) {
    element("delivery").textContent = "Your answers have arrived. You may close this page.";
    element("another").hidden = false;
  } else if (served) {
    element("delivery").textContent =
      `${left} of your answers have not arrived. Send them again, or download them and give the file to whoever asked you.`;
    element("send").hidden = false;
  } else {
    element("delivery").textContent =
      "Please download your answers and give the file to whoever asked you to take part.";
  }
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([sheet(state.answers)], { type: "application/json" }));
  link.download = `answers-${STUDY.study.slice(0, 8)}-${state.rater.slice(0, 8)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  element("another").hidden = false;
}

// ---- the beginning

async function consent() {
  element("question").textContent = STUDY.question;
  element("consent-text").replaceChildren(...STUDY.consentText.map((text) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    return paragraph;
  }));
  if (state.answers.length >= order.length) return finish();
  show("consent");
  const button = element("begin");
  button.disabled = true;
  try {
    await picture(order[state.answers.length]);
  } catch {
    return show("failure");
  }
  button.textContent = state.agreed ? `I agree, continue at ${state.answers.length + 1} of ${order.length}` : "I agree, begin";
  button.disabled = false;
  button.focus();
  preload(state.answers.length);
}

element("begin").addEventListener("click", () => {
  state.agreed = true;
  keep();
  next();
});
element("retry").addEventListener("click", () => (state.agreed ? next() : consent()));
element("send").addEventListener("click", finish);
element("download").addEventListener("click", download);
element("another").addEventListener("click", () => {
  state = fresh();
  order = orderOf(state.rater);
  keep();
  consent();
});
document.querySelectorAll(".picture").forEach((button, side) => {
  button.addEventListener("click", () => answer(side + 1));
});
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || element("rating").hidden) return;
  if (["1", "2", "3"].includes(event.key)) answer(Number(event.key));
});
window.addEventListener("online", deliver);

consent();
