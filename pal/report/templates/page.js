
"use strict";

// Texts from the data reach the page through textContent alone.
const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};

// Theme: the system's, or one of the two.
{
  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  button.hidden = false;
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "system";
    const next = themes[(themes.indexOf(now) + 1) % themes.length];
    document.documentElement.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
  });
}

// Tables whose rows a select narrows down to one group.
for (const select of document.querySelectorAll("select[data-filter]")) {
  const rows = document.getElementById(select.dataset.filter).querySelectorAll("tr[data-group]");
  const apply = () => {
    for (const row of rows) {
      row.hidden = select.value !== "" && row.dataset.group !== select.value;
    }
  };
  select.addEventListener("change", apply);
  apply();
}
