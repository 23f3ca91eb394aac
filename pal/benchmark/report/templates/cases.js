
// Case studies.
for (const sheet of document.querySelectorAll("[data-cases]")) {
  const find = (name) => sheet.querySelector(`[data-${name}]`);
  const { systems, dialogues, cases } = JSON.parse(sheet.querySelector("script").textContent);
  const contextOf = (item) => (dialogues[item.dialogue] || []).slice(0, item.turn);
  const textOf = (item) => [
    item.id, item.reference || "", ...item.persona,
    ...contextOf(item).map((turn) => turn.text),
    ...Object.values(item.responses).map((answer) => (answer ? answer.response : "")),
  ].join("\n").toLowerCase();
  const texts = cases.map(textOf);
  let shown = cases.map((_, index) => index);
  let at = 0;

  const chip = (strategy, gold) => {
    const same = gold !== undefined && strategy === gold;
    const element = make("span", same ? "chip same" : "chip", (same ? "✓ " : "") + strategy);
    if (same) element.title = "the reference’s strategy";
    return element;
  };

  const card = (kind, label, answer, gold) => {
    const article = make("article", `response ${kind}`);
    const heading = make("h4", "", label);
    if (answer && typeof answer.alpha === "number") {
      heading.append(make("span", "alpha", `α ${answer.alpha}`));
    }
    article.append(heading);
    if (answer && answer.strategy) article.append(chip(answer.strategy, gold));
    article.append(make("p", "", answer ? answer.response : "–"));
    return article;
  };

  const draw = () => {
    const box = find("case");
    box.replaceChildren();
    find("position").textContent = shown.length ? `${at + 1} of ${shown.length}` : "no such case";
    find("previous").disabled = at <= 0;
    find("next").disabled = at >= shown.length - 1;
    if (!shown.length) return;
    const item = cases[shown[at]];

    const head = make("div", "case-head");
    head.append(make("h3", "", item.id));
    const link = make("a", "", "link to this case");
    link.href = `#case=${encodeURIComponent(item.id)}`;
    head.append(link);

    const left = make("div");
    left.append(make("h4", "", "Persona of the seeker"));
    const persona = make("ul", "persona");
    for (const sentence of item.persona.length ? item.persona : ["none known yet"]) {
      persona.append(make("li", "", sentence));
    }
    left.append(persona, make("h4", "", "Dialogue so far"));
    const dialogue = make("ol", "dialogue");
    dialogue.tabIndex = 0;
    dialogue.setAttribute("aria-label", "Dialogue so far");
    for (const turn of contextOf(item)) {
      const bubble = make("li", `bubble ${turn.speaker}`);
      const who = turn.speaker === "seeker" ? "Seeker" : "Supporter";
      bubble.append(make("span", "who", turn.strategy ? `${who} · ${turn.strategy}` : who));
      bubble.append(make("p", "", turn.text));
      dialogue.append(bubble);
    }
    left.append(dialogue);

    const right = make("div");
    right.append(make("h4", "", "Responses"));
    const responses = make("div", "responses");
    if (item.reference !== undefined || item.strategy !== undefined) {
      const gold = { response: item.reference || "–", strategy: item.strategy };
      responses.append(card("gold", "Reference", gold));
    }
    systems.forEach((system) => {
      const answer = item.responses[system.name];
      responses.append(card(system.series, system.label, answer, item.strategy));
    });
    right.append(responses);

    const body = make("div", "case-body");
    body.append(left, right);
    box.append(head, body);
    dialogue.scrollTop = dialogue.scrollHeight;
  };

  const filter = () => {
    const strategy = find("strategy").value;
    const words = find("search").value.trim().toLowerCase();
    const before = shown[at];
    shown = [];
    cases.forEach((item, index) => {
      const fits = strategy === "*" || (item.strategy || "") === strategy;
      if (fits && texts[index].includes(words)) shown.push(index);
    });
    at = Math.max(0, shown.indexOf(before));
    draw();
  };

  const step = (by) => {
    if (at + by < 0 || at + by >= shown.length) return;
    at += by;
    draw();
    history.replaceState(null, "", `#case=${encodeURIComponent(cases[shown[at]].id)}`);
  };

  const follow = () => {
    const match = /^#case=(.+)$/.exec(location.hash);
    if (!match) return;
    let id = match[1];
    try { id = decodeURIComponent(id); } catch { /* not encoded: take it as it is */ }
    const index = cases.findIndex((item) => item.id === id);
    if (index < 0) return;
    if (!shown.includes(index)) {
      find("strategy").value = "*";
      find("search").value = "";
      filter();
    }
    at = shown.indexOf(index);
    draw();
    sheet.scrollIntoView();
  };

  find("strategy").addEventListener("change", filter);
  find("search").addEventListener("input", filter);
  find("previous").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  window.addEventListener("hashchange", follow);
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const { top, bottom } = sheet.getBoundingClientRect();
    const seen = top < window.innerHeight && bottom > 0;
    const busy = event.target.closest("input, select, .scroll");
    if (!by || !seen || busy || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    step(by);
  });
  draw();
  follow();
}
