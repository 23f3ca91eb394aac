// What makes the forms more comfortable; all of them work without it too. The server renders every
// page, and what it sends replaces <main>: there is one place where text becomes HTML.
"use strict";

const live = document.getElementById("live");
const announce = (text) => { live.textContent = text; };

async function send(form, button) {
  const fields = new URLSearchParams(new FormData(form));
  if (button && button.name) fields.set(button.name, button.value);
  const answer = await fetch(form.action, { method: "POST", body: fields, credentials: "omit" });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = page.getElementById("main");
  if (!main) throw new Error("no page");
  return page;
}

function show(page) {
  document.title = page.title;
  for (const part of ["main", "footer"]) {
    document.querySelector(part).replaceWith(document.adoptNode(page.querySelector(part)));
  }
  arrange();
  const said = document.querySelectorAll("#turns .theirs .text");
  const notice = document.getElementById("notice");
  if (notice) announce(notice.textContent);
  else if (said.length) announce(said[said.length - 1].textContent);
  const text = document.getElementById("text");
  if (text) text.focus({ preventScroll: true });
  else document.getElementById("main").focus();
}

function arrange() {
  // What is true with scripts alone is hidden without them.
  for (const part of document.querySelectorAll("[data-script]")) part.hidden = false;
  toEnd();
}

function toEnd() {
  const turns = document.getElementById("turns");
  if (turns) turns.scrollTop = turns.scrollHeight;
}

async function say(form) {
  const text = form.elements.text;
  if (form.dataset.busy || !text.value.trim()) return;
  form.dataset.busy = "yes";
  // Fields that are disabled are not sent, so the request begins first.
  const sent = send(form);
  text.readOnly = true;
  form.querySelector("button").disabled = true;
  const turns = document.getElementById("turns");
  for (const [kind, words] of [["mine", text.value.trim()], ["theirs waiting", "… is writing"]]) {
    const turn = document.createElement("li");
    turn.className = "turn " + kind;
    turn.textContent = words;
    turns.append(turn);
  }
  toEnd();
  announce("Sent. The system is writing.");
  try {
    show(await sent);
  } catch {
    // What is stored is shown after a reload, so nothing is sent twice.
    turns.lastChild.remove();
    turns.lastChild.remove();
    delete form.dataset.busy;
    text.readOnly = false;
    form.querySelector("button").disabled = false;
    announce("No connection. Please try again.");
    let told = document.getElementById("offline");
    if (!told) {
      told = document.createElement("p");
      told.id = "offline";
      told.className = "notice";
      form.before(told);
    }
    told.textContent = "No connection. Please try again; nothing is sent twice.";
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.id === "say") {
    event.preventDefault();
    say(form);
  } else if (form.dataset.sent) {
    event.preventDefault(); // a second click
  } else {
    form.dataset.sent = "yes";
  }
});

document.addEventListener("keydown", (event) => {
  if (event.target.id === "text" && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
});

// Answers are stored one by one, in the order in which they are given.
let saving = Promise.resolve();
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-save]");
  if (!form) return;
  const told = document.getElementById("saved");
  const fields = new URLSearchParams(new FormData(form));
  saving = saving.then(async () => {
    try {
      const answer = await fetch(form.action, { method: "POST", body: fields, credentials: "omit" });
      told.textContent = answer.ok ? "Stored." : "Not stored yet; it is sent when you hand in.";
    } catch {
      told.textContent = "Not stored yet; it is sent when you hand in.";
    }
  });
});

// A page from the browser's memory may be older than what is stored.
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
arrange();
