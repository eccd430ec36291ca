// The user study's page: shows triplets, stores the answers on the device, and sends them to the server if there is one.
"use strict";

// Earlier keys and touches were meant for the previous triplet.
const SETTLE_MILLISECONDS = 300;
const KEY = `user-study-${STUDY.study}`;
const element = (id) => document.getElementById(id);
const served = location.protocol.startsWith("http");

// ---- state of this rater, stored on the device so that a reload or an empty battery loses nothing

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
  } catch { /* the browser stores nothing, or the key holds something else */ }
  return fresh();
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch { /* the answers last as long as the page */ }
}

// Each rater's order depends only on their number, so that a reload continues in the same order.
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

// ---- images: preloaded one after the other, in display order

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
    promise.catch(() => loaded.delete(triplet)); // so that the next access tries again
    loaded.set(triplet, promise);
  }
  return loaded.get(triplet);
}

async function preload(from) {
  for (const triplet of order.slice(from)) {
    try { await picture(triplet); } catch { return; } // reported when the image is needed
  }
}

// ---- rating

let shownAt = null; // null while answers are not accepted

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
    canvas.width = canvas.height = STUDY.size; // also clears it
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
  document.activeElement?.blur(); // a focus ring would stay on the last choice
  deliver();
  next();
}

// ---- delivery: one answer at a time, until the server confirms it

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
      // 409: another window of the same rater answered first; its answer counts.
      if (!reply.ok && reply.status !== 409) return;
    } catch {
      return; // no network: retried with the next answer or at the end
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
    await deliver(); // answers given during the first delivery
  }
  const left = unsent().length;
  if (served && left === 0) {
    element("delivery").textContent = "Your answers were received. You may close this page.";
    element("another").hidden = false;
  } else if (served) {
    element("delivery").textContent =
      `${left} of your answers were not received. Send them again, or download them and give the file to the organizer of the study.`;
    element("send").hidden = false;
  } else {
    element("delivery").textContent =
      "Please download your answers and give the file to the organizer of the study.";
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

// ---- start

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
  button.textContent = state.agreed ? `I agree, continue with ${state.answers.length + 1} of ${order.length}` : "I agree, begin";
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
