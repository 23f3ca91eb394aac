/* The page of `pal serve`: a chat over the server's own API.
 *
 * What people and models say enters the document as text alone, never as markup. The conversation is
 * kept in the tab's sessionStorage with the message that is being written, so that a reload keeps both and
 * closing the tab deletes them. No reply is shown before the guard's verdict on it has come, and help that
 * is on view stays whatever fails.
 */
"use strict";

const THREE_HOURS = 3 * 60 * 60 * 1000;
const SILENCE = 150 * 1000; // longer than the server itself waits
const ALPHA = { least: 0, most: 2, step: 0.125 };
const NOTICE =
  "You are talking to a program, not a person. It can be wrong, and it is not a crisis service.";
const GENERAL_HELP =
  "If you are in danger or in despair, please talk to a person now: call your local emergency number, " +
  "or find a helpline at https://findahelpline.com";

const byId = (id) => document.getElementById(id);

/* ------------------------------------------------------------------ what the tab remembers */

const store = {
  get(key, fallback) {
    try {
      return JSON.parse(sessionStorage.getItem(`pal.${key}`)) ?? fallback;
    } catch {
      return fallback;
    }
  },
  set(key, value) {
    try {
      sessionStorage.setItem(`pal.${key}`, JSON.stringify(value));
    } catch {
      // A full or forbidden storage costs the reload, not the chat.
    }
  },
};

const STOPPED = "Stopped before a reply came.";
const emptyChat = () => ({
  turns: [], // {text, reply, without}
  notices: [], // numbers of turns before which the notice was repeated
  persona: null, // sentences of the user's own; null leaves it to the server
  strategy: "",
  alpha: {}, // strategies whose slider was moved
  compare: false,
  draft: "", // the text in the field of the message
});

let facts = null; // what /page.json says
let chat = { ...emptyChat(), ...store.get("chat", {}) };
let pin = store.get("pin", { level: 0, help: null });
let token = store.get("token", "");
let isLeaving = false; // the page is being closed or reloaded
let run = null; // the request under way: {controller, others, isFollowed}
let isQueued = false; // the text in the field was sent while a reply is written
const shown = new Map(); // turn → its elements
const KEYS = document.getElementById("keys").textContent;
const QUEUED = "Not sent yet: your message is sent when this reply has ended. Escape ends it now.";

function save() {
  chat.draft = byId("message").value;
  store.set("chat", chat);
}

/* ------------------------------------------------------------------ small helpers */

function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function say(text, { urgent = false } = {}) {
  const region = byId(urgent ? "alarm" : "announce");
  region.textContent = "";
  // A region that is emptied and filled at once may be passed over.
  setTimeout(() => (region.textContent = text), 50);
}

/** Show lines of help, with links for addresses and for numbers as they stand there. */
function showHelp(place, help) {
  const links = /https:\/\/\S*[^\s.,;)]|(?<=\bcall (?:or text )?)\d[\d ]*\d|(?<=\btext (?:\w+ to )?)\d[\d ]*\d/g;
  const lines = help.split("\n").map((line) => {
    const paragraph = make("p");
    let end = 0;
    for (const found of line.matchAll(links)) {
      const what = found[0];
      const before = line.slice(0, found.index);
      paragraph.append(line.slice(end, found.index));
      end = found.index + what.length;
      const link = make("a", { textContent: what });
      if (what.startsWith("https:")) {
        Object.assign(link, { href: what, rel: "noreferrer noopener", target: "_blank" });
      } else {
        const kind = /call (or text )?$/.test(before) ? "tel" : "sms";
        link.href = `${kind}:${what.replaceAll(" ", "")}`;
      }
      paragraph.append(link);
    }
    paragraph.append(line.slice(end), " ");
    return paragraph;
  });
  place.replaceChildren(...lines);
}

const standingHelp = () => facts?.help || GENERAL_HELP;
const guardSpeaks = (reply) => Boolean(reply?.finish === "content_filter");
const personaShown = () => chat.persona ?? personasInferred().at(-1) ?? [];

/** Whether the persona of a reply was inferred: it was not given, and the guard did not speak instead. */
const isInferred = (reply) => Boolean(reply?.persona && !reply.isGiven && !guardSpeaks(reply));

/** Return the persona of each reply for which one was inferred. */
function personasInferred() {
  return chat.turns.map((turn) => turn.reply).filter(isInferred).map((reply) => reply.persona);
}

/** Return what a reply says without the lines of help that the guard put before or behind it. */
function spoken(reply) {
  const { text, help } = reply;
  if (!help) return text;
  if (text.startsWith(help)) return text.slice(help.length).trimStart();
  if (text.endsWith(`\n\n${help}`)) return text.slice(0, -help.length).trimEnd();
  return text;
}

/* ------------------------------------------------------------------ the server */

class Failure extends Error {}

function headers() {
  const all = { "Content-Type": "application/json" };
  if (token) all.Authorization = `Bearer ${token}`;
  return all;
}

/** Return what an answer with an error means for the reader. */
async function failureOf(response) {
  let message = "";
  try {
    message = (await response.json()).error.message;
  } catch {
    // An answer that is no JSON says no more than its status.
  }
  if (response.status === 401) return tokenWanted();
  if (response.status === 429) {
    const seconds = Number(response.headers.get("Retry-After"));
    return new Failure(`The server is busy. Please wait ${seconds > 0 ? `${seconds} seconds` : "a moment"}.`);
  }
  return new Failure(`The server gave no reply (${response.status}${message ? `: ${message}` : ""}).`);
}

function tokenWanted() {
  byId("token-form").hidden = false;
  if (token) return new Failure("The server did not accept the token. Check it and put it in again.");
  return new Failure("This server needs a token. Put it in below, or open the page with #token=… in its address.");
}

/** Send a request and hand over the choice of each chunk; raise unless the reply is whole. */
async function stream(body, controller, take) {
  let timer = 0;
  let silent = false;
  const listen = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      silent = true;
      controller.abort();
    }, SILENCE);
  };
  let ended = false;
  try {
    listen();
    const response = await fetch("/v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(body), signal: controller.signal,
    });
    if (!response.ok) throw await failureOf(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    while (!ended) {
      const { value, done } = await reader.read();
      if (done) break;
      listen();
      buffer += value;
      const events = buffer.split(/\r?\n\r?\n/);
      buffer = events.pop();
      for (const event of events) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        const data = lines.map((line) => line.slice(5).trimStart()).join("\n");
        if (!data) continue;
        if (data === "[DONE]") {
          ended = true;
          break;
        }
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Failure(`The reply broke off (${chunk.error.message}).`);
        for (const choice of chunk.choices ?? []) if (choice.index === 0) take(choice);
      }
    }
    if (ended) reader.cancel().catch(() => {});
  } catch (error) {
    if (silent) throw new Failure("The server has stopped answering.");
    if (error instanceof Failure || error.name === "AbortError") throw error;
    if (error instanceof SyntaxError) throw new Failure("The reply broke off (it cannot be read).");
    throw new Failure("The server cannot be reached, or the connection broke.");
  } finally {
    clearTimeout(timer);
  }
  if (!ended) throw new Failure("The reply broke off before its end.");
}

/** Return the messages up to and with a turn. */
function messagesTo(turn) {
  const messages = [];
  for (const one of chat.turns) {
    messages.push({ role: "user", content: one.text });
    if (one === turn) break;
    const { reply } = one;
    const content = reply && reply.state !== "failed" ? spoken(reply) || reply.text : "";
    if (!content.trim()) continue;
    const message = { role: "assistant", content };
    if (reply.strategy) message.strategy = reply.strategy;
    messages.push(message);
  }
  return messages;
}

function bodyFor(turn, { without = false } = {}) {
  const body = { model: facts.model, messages: messagesTo(turn), stream: true, pinned: pin.level };
  if (chat.strategy) body.strategy = chat.strategy;
  if (without) return { ...body, persona: [], alpha: 0 };
  if (chat.persona) body.persona = chat.persona;
  if (Object.keys(chat.alpha).length) body.alpha = chat.alpha;
  return body;
}

const emptyReply = () => ({ text: "", state: "writing", verdict: false });

/** Put a chunk into a reply. Nothing counts as said before the guard's verdict is there. */
function grow(reply, choice) {
  if (choice.pal?.guard) {
    const { strategy, strategy_probs, alpha, persona, guard } = choice.pal;
    Object.assign(reply, {
      strategy, probs: strategy_probs, alpha, persona, help: guard.help, action: guard.action, verdict: true,
    });
    keepPin(guard);
  }
  const more = choice.delta?.content ?? "";
  if (choice.finish_reason === "content_filter") {
    // The guard takes back what was shown and speaks in its place.
    reply.takenBack = Boolean(reply.text);
    reply.text = more.trim() || reply.help || standingHelp();
  } else {
    reply.text += more;
  }
  if (choice.finish_reason) reply.finish = choice.finish_reason;
}

async function fetchReply(turn, kind, controller) {
  const body = bodyFor(turn, { without: kind === "without" });
  const reply = { ...emptyReply(), isGiven: "persona" in body };
  turn[kind] = reply;
  draw(turn);
  try {
    await stream(body, controller, (choice) => {
      const first = !reply.verdict;
      grow(reply, choice);
      if (!reply.verdict) return;
      if (kind === "reply") {
        if (first) drawPersona();
        if (first && chat.compare && !guardSpeaks(reply)) fetchWithout(turn, controller);
      }
      draw(turn);
    });
    if (!reply.verdict) throw new Failure("The reply came without the check for signs of a crisis, so it is not shown.");
    reply.state = "done";
  } catch (error) {
    if (isLeaving) return reply; // it stays under way, which the next page sees
    if (error.name === "AbortError" && reply.verdict) reply.state = "stopped";
    else {
      reply.state = "failed";
      reply.error = error.name === "AbortError" ? STOPPED : error.message;
      if (!(error instanceof Failure) && error.name !== "AbortError") console.error(error);
    }
  }
  draw(turn);
  save();
  return reply;
}

/** Ask what the model says without the persona. */
function fetchWithout(turn, controller) {
  const asked = fetchReply(turn, "without", controller);
  if (run) run.others.push(asked);
  return asked;
}

async function answer(turn) {
  const current = { controller: new AbortController(), others: [], isFollowed: true };
  run = current;
  hideFailure();
  turn.without = null;
  drawControls();
  say("Writing a reply.");
  const reply = await fetchReply(turn, "reply", current.controller);
  const isMissing = chat.compare && !turn.without && reply.state === "done" && !guardSpeaks(reply);
  if (isMissing && run === current) fetchWithout(turn, current.controller);
  await Promise.allSettled(current.others);
  if (run !== current) return;
  run = null;
  const isNext = isQueued && !guardSpeaks(reply) && (reply.state === "done" || reply.error === STOPPED);
  isQueued = false;
  drawControls();
  if (reply.state === "failed") showFailure(reply.error, { isStop: reply.error === STOPPED });
  else announceReply(turn);
  if (current.isFollowed && guardSpeaks(reply)) shown.get(turn)?.pair.scrollIntoView({ block: "start" });
  if (document.activeElement === document.body || document.activeElement === byId("stop")) {
    byId("message").focus({ preventScroll: true });
  }
  if (isNext) send();
}

async function answerWithout(turn) {
  const current = { controller: new AbortController(), others: [], isFollowed: true };
  run = current;
  drawControls();
  await fetchWithout(turn, current.controller);
  if (run !== current) return;
  run = null;
  const isNext = isQueued;
  isQueued = false;
  drawControls();
  if (turn.without?.state === "done") say(`Without the persona: ${spoken(turn.without)}`);
  if (isNext) send();
}

function announceReply(turn) {
  const { reply, without } = turn;
  const parts = [guardSpeaks(reply) ? `${spoken(reply)} ${reply.help ?? ""}` : spoken(reply)];
  if (reply.strategy) parts.push(`Strategy: ${reply.strategy}.`);
  if (reply.state === "stopped") parts.push("Stopped.");
  const before = personasInferred().at(-2) ?? [];
  const isNew = chat.persona === null && isInferred(reply);
  const found = isNew ? reply.persona.filter((sentence) => !before.includes(sentence)) : [];
  if (found.length) parts.push(`New in the persona: ${found.join(" ")}.`);
  if (chat.compare && without?.state === "done") parts.push(`Without the persona: ${spoken(without)}`);
  say(parts.join(" "));
}

/* ------------------------------------------------------------------ help */

/** Keep help on view for as long as the guard says. */
function keepPin(guard) {
  if (guard.status === "off") return;
  const before = pin.level;
  const help = guard.pinned ? guard.help || pin.help || standingHelp() : null;
  const isNew = guard.pinned > before;
  pin = { level: guard.pinned, help, isShort: pin.isShort && !isNew };
  store.set("pin", pin);
  drawPin({ isNew });
}

/** Show all lines of help or, on a small screen, the first two that name somebody to turn to. */
function shorten(isShort) {
  pin = { ...pin, isShort };
  store.set("pin", pin);
  drawPin();
}

function drawPin({ isNew = false } = {}) {
  const box = byId("pinned");
  box.hidden = !pin.level;
  if (pin.level) {
    const help = pin.help || standingHelp();
    showHelp(byId("pinned-lines"), help);
    const lines = [...byId("pinned-lines").children];
    const first = lines.filter((line) => line.querySelector("a")).slice(0, 2);
    const more = first.length === 2 ? lines.filter((line) => !first.includes(line)) : [];
    for (const line of more) line.className = "more";
    const isShort = Boolean(pin.isShort && more.length);
    byId("pinned-more").hidden = !more.length;
    box.classList.toggle("short", isShort);
    byId("pinned-more").textContent = isShort ? "Show all" : "Show less";
    byId("pinned-more").setAttribute("aria-expanded", String(!isShort));
    if (isNew) say(`Talk to a person now. ${help}`, { urgent: true });
  }
  byId("standing").classList.toggle("shrunk", Boolean(pin.level));
  measure();
}

function showFailure(message, { isStop = false } = {}) {
  byId("failure").hidden = false;
  drawTurns();
  byId("failure-text").textContent = message;
  say(message); // in place of what is no longer true
  byId("failure").classList.toggle("mild", isStop);
  // A message that nobody could look at may have been a cry for help; who stops a reply asks for none.
  byId("failure-help").hidden = Boolean(pin.level) || isStop;
  showHelp(byId("failure-help"), standingHelp());
  byId("failure").scrollIntoView({ block: "nearest" });
}

function hideFailure() {
  byId("failure").hidden = true;
  byId("failure-text").textContent = "";
  drawTurns(); // the place of a missing reply says so again
}

/* ------------------------------------------------------------------ the notice */

function remind() {
  const last = store.get("notice", 0);
  if (Date.now() - last < THREE_HOURS) return;
  store.set("notice", Date.now());
  if (!last) return; // the first stands at the top
  chat.notices.push(chat.turns.length);
  save();
  drawLog();
  say(NOTICE);
  lastItem()?.scrollIntoView({ block: "nearest" });
}

/* ------------------------------------------------------------------ what is drawn */

/** Keep the end of a growing reply in view, unless the reader has scrolled away. */
function follow() {
  if (run?.isFollowed) lastItem()?.scrollIntoView({ block: "end" });
}

/** Keep what sticks to an edge from covering what has the focus or is scrolled to. */
function measure() {
  const root = document.documentElement.style;
  const top = document.querySelector(".top");
  const head = getComputedStyle(top).position === "sticky" ? top.offsetHeight : 0;
  const covered = head + byId("pinned").offsetHeight;
  root.setProperty("--head", `${head}px`);
  root.setProperty("--covered", `${covered}px`);
  root.scrollPaddingTop = `${covered + 8}px`;
  root.scrollPaddingBottom = `${byId("composer").offsetHeight + 8}px`;
}

const stopFollowing = () => run && (run.isFollowed = false);

const lastItem = () => byId("log").lastElementChild;

function notice() {
  return make("li", { className: "notice", textContent: NOTICE });
}

const noticesBefore = (number) => chat.notices.filter((place) => place === number).map(notice);

function drawLog() {
  shown.clear();
  const items = [notice()];
  chat.turns.forEach((turn, number) => {
    items.push(...noticesBefore(number));
    items.push(...elementsOf(turn));
  });
  items.push(...noticesBefore(chat.turns.length));
  byId("log").replaceChildren(...items);
  drawTurns();
}

function elementsOf(turn) {
  const user = make(
    "li", { className: "message user" },
    make("h3", { className: "who", textContent: "You" }),
    make("div", { className: "text", dir: "auto", textContent: turn.text })
  );
  const pair = make("li", { className: "pair" });
  shown.set(turn, { pair });
  return [user, pair];
}

function draw(turn) {
  const found = shown.get(turn);
  if (!found) return;
  for (const kind of ["reply", "without"]) {
    const reply = kind === "reply" || chat.compare ? turn[kind] : null;
    if (!reply) {
      found[kind]?.box.remove();
      delete found[kind];
      continue;
    }
    if (!found[kind]) {
      found[kind] = boxOf(kind);
      found.pair.append(found[kind].box);
    }
    fill(found[kind], turn, kind, reply);
  }
  const isUnsaid = [found.reply?.text, found.reply?.state].every((part) => !part?.textContent);
  found.pair.hidden = !turn.reply || (isUnsaid && !found.without);
  found.pair.classList.toggle("two", Boolean(found.without));
  if (turn === chat.turns.at(-1)) follow();
}

const drawTurns = () => chat.turns.forEach((turn) => draw(turn));

function boxOf(kind) {
  const parts = {
    who: make("h3", { className: "who" }),
    text: make("div", { className: "text", dir: "auto" }),
    help: make("div", { className: "help" }),
    state: make("p", { className: "state" }),
    retry: make("button", { type: "button", textContent: "Try again" }),
    bars: make("ul", { className: "bars" }),
  };
  parts.box = make("div", { className: `message ${kind}` }, ...Object.values(parts));
  return parts;
}

function fill(parts, turn, kind, reply) {
  const isWithout = kind === "without";
  parts.box.setAttribute("aria-busy", String(reply.state === "writing"));
  const how = reply.strategy
    ? ` · ${reply.strategy}${reply.alpha === null || reply.alpha === undefined ? "" : ` · α ${number(reply.alpha)}`}`
    : "";
  const name = isWithout ? "Without the persona" : "Reply";
  parts.who.textContent = guardSpeaks(reply) ? `${name} · a prepared text, not the model’s` : name + how;
  const text = reply.verdict ? spoken(reply) : "";
  if (parts.text.textContent !== text) parts.text.textContent = text;
  parts.help.hidden = !(guardSpeaks(reply) && reply.help);
  if (!parts.help.hidden && !parts.help.childElementCount) showHelp(parts.help, reply.help);
  const isTold = reply.state === "failed" && turn === chat.turns.at(-1) && !byId("failure").hidden;
  parts.state.textContent = isTold && !isWithout ? "" : stateOf(reply, isWithout);
  parts.state.hidden = !parts.state.textContent;
  parts.retry.hidden = !(isWithout && reply.state === "failed");
  parts.retry.onclick = () => !run && answerWithout(turn);
  drawBars(parts.bars, reply, isWithout);
}

function stateOf(reply, isWithout) {
  if (reply.state === "writing") return reply.verdict && reply.text ? "" : "Writing …";
  if (reply.state === "stopped") return "Stopped.";
  if (reply.state === "failed") {
    if (isWithout || reply.error === STOPPED) return reply.error;
    return reply.verdict && reply.text ? "This reply broke off." : "No reply came.";
  }
  if (reply.takenBack) return "The model’s reply was withdrawn.";
  return reply.finish === "length" ? "Cut off at the maximum length of a reply." : "";
}

function drawBars(list, reply, isWithout) {
  list.hidden = !reply.probs;
  if (!reply.probs || list.childElementCount) return;
  list.setAttribute(
    "aria-label", `Probabilities of the strategies${isWithout ? " without the persona" : ""}`
  );
  for (const [name, share] of Object.entries(reply.probs)) {
    const chosen = name === reply.strategy;
    const fillBar = make("span", { className: "fill" });
    fillBar.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
    const label = make("span", { textContent: name });
    if (chosen) label.append(make("span", { className: "hidden", textContent: " (chosen)" }));
    list.append(make(
      "li", { className: chosen ? "chosen" : "" },
      label,
      make("span", { className: "track", ariaHidden: "true" }, fillBar),
      make("span", { className: "value", textContent: percent(share) })
    ));
  }
}

const number = (value) => String(Number(Number(value).toFixed(3)));

function percent(share) {
  if (share > 0 && share < 0.01) return "<1 %";
  return `${Math.round(100 * share)} %`;
}

function drawPersona() {
  const sentences = personaShown();
  const isOwn = chat.persona !== null;
  const before = personasInferred().at(-2) ?? [];
  const infers = Boolean(facts?.extractor);
  byId("persona-count").textContent = sentences.length ? `(${sentences.length})` : "";
  byId("persona-note").textContent = isOwn
    ? `Written or changed by you${infers ? ", so it no longer grows by itself" : ""}.`
    : infers
      ? "Inferred about you from what you say; it grows with the chat. Once you add or remove a sentence, it stays as you leave it."
      : "What the model knows about you. This server infers nothing; add sentences of your own.";
  byId("persona-infer").hidden = !(isOwn && infers);
  const items = sentences.map((sentence, place) => {
    const fresh = !isOwn && !before.includes(sentence);
    const text = make("span", { textContent: sentence, dir: "auto" });
    if (fresh) text.append(make("span", { className: "hidden", textContent: " (new)" }));
    const remove = make("button", { type: "button", textContent: "×", ariaLabel: `Remove: ${sentence}` });
    remove.addEventListener("click", () => removeSentence(place));
    return make("li", { className: fresh ? "fresh" : "" }, text, remove);
  });
  if (!items.length) items.push(make("li", { className: "none", textContent: "Nothing is known yet." }));
  byId("persona").replaceChildren(...items);
}

function changePersona(sentences) {
  chat.persona = sentences;
  save();
  drawPersona();
}

function removeSentence(place) {
  const sentences = [...personaShown()];
  const [gone] = sentences.splice(place, 1);
  // Without an extractor nothing else would fill an empty list, so it needs no marking as one's own.
  changePersona(sentences.length || facts?.extractor ? sentences : null);
  const buttons = byId("persona").querySelectorAll("button");
  (buttons[Math.min(place, buttons.length - 1)] ?? byId("persona-new")).focus();
  say(`Removed: ${gone}`);
}

function drawControls() {
  const isBusy = Boolean(run);
  isQueued &&= isBusy && Boolean(byId("message").value.trim());
  byId("keys").textContent = isQueued ? QUEUED : KEYS;
  byId("send").hidden = isBusy;
  byId("stop").hidden = !isBusy;
  byId("send").disabled = !facts || !byId("message").value.trim();
  byId("undo").disabled = isBusy || !chat.turns.length;
  byId("save").disabled = !chat.turns.length;
  byId("strategy").value = chat.strategy;
  byId("strategy-name").textContent = chat.strategy ? `(${chat.strategy})` : "";
  byId("compare").checked = chat.compare;
}

function drawSliders() {
  const rows = facts.strategies.map((name, place) => {
    const own = facts.alpha[place];
    const id = `alpha-${place}`;
    const input = make("input", {
      type: "range", id, min: ALPHA.least, max: ALPHA.most, step: ALPHA.step,
      value: chat.alpha[name] ?? own,
    });
    const output = make("output", { htmlFor: id });
    const drawOne = () => {
      const isChanged = name in chat.alpha;
      output.textContent = isChanged ? number(chat.alpha[name]) : `${number(own)} (model’s own)`;
      output.classList.toggle("changed", isChanged);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      chat.alpha[name] = Number(input.value);
      drawOne();
      drawChanged();
      save();
    });
    drawOne();
    return make("div", { className: "slider" }, make("label", { htmlFor: id, textContent: name }), output, input);
  });
  byId("sliders").replaceChildren(...rows);
  drawChanged();
}

function drawChanged() {
  const count = Object.keys(chat.alpha).length;
  byId("alpha-count").textContent = count ? `(${count} changed)` : "";
  byId("alpha-reset").disabled = !count;
}

function drawFacts() {
  byId("model").textContent = facts.model;
  document.title = `Support chat · ${facts.model}`;
  const options = facts.strategies.map((name) => make("option", { value: name, textContent: name }));
  byId("strategy").replaceChildren(byId("strategy").options[0], ...options);
  if (!facts.strategies.includes(chat.strategy)) chat.strategy = "";
  for (const name of Object.keys(chat.alpha)) if (!facts.strategies.includes(name)) delete chat.alpha[name];
  const off = byId("off");
  off.hidden = !facts.guard?.off;
  off.textContent = facts.guard?.off
    ? "The guard of this server is off: nobody watches for signs of suicide or self-harm, and no help is shown by itself."
    : "";
  showHelp(byId("standing-lines"), standingHelp());
  showHelp(byId("failure-help"), standingHelp());
  drawSliders();
}

/* ------------------------------------------------------------------ what the user does */

function send() {
  const field = byId("message");
  const text = field.value.trim();
  if (!text || !facts) return;
  if (run) {
    isQueued = true;
    drawControls();
    say(QUEUED);
    return;
  }
  remind();
  shorten(true); // who goes on has seen it all; a graver message shows it whole again
  field.value = "";
  const turn = { text, reply: null, without: null };
  chat.turns.push(turn);
  save();
  byId("log").append(...elementsOf(turn));
  field.focus({ preventScroll: true });
  answer(turn);
  follow();
}

function undo() {
  if (run || !chat.turns.length) return;
  const turn = chat.turns.pop();
  chat.notices = chat.notices.filter((place) => place <= chat.turns.length);
  const field = byId("message");
  if (!field.value.trim()) field.value = turn.text;
  hideFailure();
  save();
  drawLog();
  drawPersona();
  drawControls();
  field.focus();
  say("The last turn is undone. Your message is back in the field.");
}

function startNew() {
  run?.controller.abort();
  run = null;
  chat = emptyChat();
  byId("message").value = "";
  store.set("notice", Date.now());
  hideFailure();
  save();
  drawLog();
  drawPersona();
  drawPin();
  if (facts) drawSliders();
  drawControls();
  byId("message").focus();
  say(`New chat, with the settings that the page starts with. ${NOTICE}`);
}

function download(name, type, contents) {
  const link = make("a", { href: URL.createObjectURL(new Blob([contents], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const saidIn = (reply) => (reply && reply.state !== "failed" ? reply.text : "");

function transcriptText() {
  const lines = [`Chat with ${facts?.model ?? "a model"}, a program and not a person.`, ""];
  const persona = personaShown();
  if (persona.length) lines.push("Persona:", ...persona.map((sentence) => `- ${sentence}`), "");
  for (const { text, reply, without } of chat.turns) {
    lines.push(`You: ${text}`);
    if (saidIn(reply)) {
      const how = reply.strategy ? ` [${reply.strategy}, α ${number(reply.alpha)}]` : "";
      lines.push(`Reply${how}: ${saidIn(reply)}`);
    }
    if (chat.compare && saidIn(without)) lines.push(`Without the persona: ${saidIn(without)}`);
    lines.push("");
  }
  return lines.join("\n");
}

/** The dialogue in the layout that every command reads. */
function transcriptData() {
  const dialog = [];
  let persona = [];
  for (const { text, reply } of chat.turns) {
    persona = guardSpeaks(reply) ? persona : (reply?.persona ?? persona);
    dialog.push({ speaker: "seeker", text, persona }); // as it was known when it was answered
    if (!saidIn(reply)) continue;
    const turn = { speaker: "supporter", text: spoken(reply) || reply.text };
    if (reply.strategy) Object.assign(turn, { strategy: reply.strategy, alpha: reply.alpha });
    dialog.push(turn);
  }
  return `${JSON.stringify({ id: "chat", persona: personaShown(), dialog })}\n`;
}

/* ------------------------------------------------------------------ start */

function takeToken() {
  const found = /[#&]token=([^&]+)/.exec(location.hash);
  if (!found) return false;
  try {
    token = decodeURIComponent(found[1]);
  } catch {
    token = found[1];
  }
  store.set("token", token);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

async function loadFacts() {
  const banner = byId("startup");
  try {
    const response = await fetch("/page.json", { headers: headers() });
    if (!response.ok) throw await failureOf(response);
    facts = await response.json();
    byId("token-form").hidden = true;
    byId("token").value = "";
    banner.hidden = true;
    drawFacts();
  } catch (error) {
    const message = error instanceof Failure ? error.message : "The server cannot be reached.";
    const again = make("button", { type: "button", textContent: "Try again" });
    again.addEventListener("click", loadFacts);
    banner.replaceChildren(make("p", { role: "alert", textContent: message }), again);
    banner.hidden = false;
  }
  drawPersona();
  drawPin();
  drawControls();
}

/** Show the end of a chat that the tab remembers; the browser would go where the page stood before. */
function showEnd() {
  if (!chat.turns.length) return;
  measure();
  const isFixed = guardSpeaks(chat.turns.at(-1).reply); // its first words count
  const end = byId("failure").hidden ? lastItem() : byId("failure");
  end.scrollIntoView({ block: isFixed ? "start" : "end" });
}

/** A reply that was under way when the page went is not under way any more. */
function settle() {
  for (const turn of chat.turns) {
    for (const kind of ["reply", "without"]) if (turn[kind]?.state === "writing") {
      Object.assign(turn[kind], { state: "failed", error: "The page was closed or reloaded before the reply ended." });
    }
  }
  const last = chat.turns.at(-1);
  if (last && (!last.reply || last.reply.state === "failed")) {
    last.reply ??= { ...emptyReply(), state: "failed", error: "The page was closed or reloaded before a reply came." };
    showFailure(last.reply.error);
  }
}

function listen() {
  const on = (id, event, act) => byId(id).addEventListener(event, act);
  on("composer", "submit", (event) => {
    event.preventDefault();
    send();
  });
  on("message", "input", () => {
    drawControls();
    save();
  });
  on("message", "keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && run && !document.querySelector("dialog[open]")) run.controller.abort();
  });
  on("stop", "click", () => run?.controller.abort());
  on("undo", "click", undo);
  on("pinned-more", "click", () => shorten(!pin.isShort));
  on("retry", "click", () => {
    const turn = chat.turns.at(-1);
    if (run || !turn || !facts) return;
    byId("message").focus({ preventScroll: true });
    answer(turn);
  });
  on("strategy", "change", () => {
    chat.strategy = byId("strategy").value;
    drawControls();
    save();
  });
  on("compare", "change", () => {
    chat.compare = byId("compare").checked;
    save();
    drawTurns();
  });
  on("alpha-reset", "click", () => {
    chat.alpha = {};
    save();
    drawSliders();
    byId("sliders").querySelector("input").focus();
    say("All weights are the model’s own again.");
  });
  on("persona-form", "submit", (event) => {
    event.preventDefault();
    const sentence = byId("persona-new").value.trim();
    if (!sentence) return;
    const sentences = personaShown();
    if (!sentences.includes(sentence)) changePersona([...sentences, sentence]);
    byId("persona-new").value = "";
    byId("persona-new").focus();
    say(`Added: ${sentence}`);
  });
  on("persona-infer", "click", () => {
    chat.persona = null;
    save();
    drawPersona();
    byId("persona-new").focus();
    say("The persona is inferred again from the next reply that the model writes.");
  });
  on("token-form", "submit", (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    store.set("token", token);
    loadFacts();
  });
  on("save", "click", () => byId("save-dialog").showModal());
  on("save-cancel", "click", () => byId("save-dialog").close());
  on("save-text", "click", () => {
    download("chat.txt", "text/plain", transcriptText());
    byId("save-dialog").close();
  });
  on("save-data", "click", () => {
    download("chat.jsonl", "application/jsonl", transcriptData());
    byId("save-dialog").close();
  });
  on("new", "click", () => (chat.turns.length ? byId("new-dialog").showModal() : startNew()));
  on("new-no", "click", () => byId("new-dialog").close());
  on("new-yes", "click", () => {
    byId("new-dialog").close();
    startNew();
  });
  window.addEventListener("wheel", stopFollowing, { passive: true });
  window.addEventListener("touchmove", stopFollowing, { passive: true });
  window.addEventListener("keydown", (event) => {
    if (["PageUp", "Home", "ArrowUp"].includes(event.key) && event.target.tagName !== "TEXTAREA") stopFollowing();
  });
  window.addEventListener("hashchange", () => takeToken() && loadFacts());
  window.addEventListener("pagehide", () => {
    isLeaving = true;
    save();
  });
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  window.addEventListener("resize", measure);
  document.addEventListener("visibilitychange", remind);
  setInterval(remind, 30_000);
  const sizes = new ResizeObserver(() => {
    measure();
    follow();
  });
  sizes.observe(document.querySelector(".top"));
  sizes.observe(byId("pinned"));
  sizes.observe(byId("composer"));
}

takeToken();
byId("message").value = chat.draft;
listen();
// Where the panels stand above the chat they are closed, until they stand beside it again. A window that
// becomes as narrow is like a page that is opened in it, which shows the end of the chat.
const narrow = window.matchMedia("(max-width: 59.99rem)");
let closed = [];
function arrangePanels() {
  if (narrow.matches) closed = [...document.querySelectorAll("details.card[open]")];
  for (const card of closed) card.open = !narrow.matches;
}
narrow.addEventListener("change", () => {
  arrangePanels();
  if (narrow.matches) showEnd();
});
arrangePanels();
remind();
drawLog();
drawPersona();
drawPin();
settle();
drawLog();
drawControls();
history.scrollRestoration = "manual";
showEnd();
const whereItEnds = window.scrollY;
loadFacts().then(() => window.scrollY === whereItEnds && showEnd());
