"use strict";
// Reading needs no script; this filters, sorts, opens cells and copies. Texts are only ever set as
// text, so that no name in the data becomes markup.
const data = JSON.parse(document.getElementById("data").textContent);
document.documentElement.classList.add("script");
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const made = (tag, text = "", name = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
};
const number = (value, places = 2) =>
  typeof value === "number" ? value.toExponential(places - 1) : value ?? "";

// The baseline of the speeds: every place is in the data, for each of them.
const baseline = document.getElementById("baseline");
function beside(chart, name) {
  const views = data.charts[chart.dataset.chart], view = views[name] ?? views[""];
  const spot = (place) => view.spots[place.split(",")[0]][place.split(",")[1]];
  const move = (element, found, left, width) => {
    element.style.display = found ? "" : "none";
    if (found) element.style.left = `${found[left]}%`;
    if (found && width) element.style.width = `${found[width]}%`;
  };
  for (const dot of all("[data-dot]", chart)) move(dot, spot(dot.dataset.dot), 0);
  for (const range of all("[data-range]", chart)) move(range, spot(range.dataset.range), 1, 2);
  for (const told of all("[data-times]", chart)) told.textContent = spot(told.dataset.times)?.[3] ?? "";
  for (const unit of all(".unit", chart)) unit.textContent = view.label;
  for (const track of all(".track", chart)) {
    const axis = track.parentElement.matches(".axis");
    all(axis ? "span" : "s", track).forEach((tick) => tick.remove());
    const marks = view.ticks.map(([left, label]) => [left, label, ""]);
    if (view.one !== null && !axis) marks.push([view.one, "", "one"]);
    for (const [left, label, look] of marks) {
      const tick = made(axis ? "span" : "s", axis ? label : "", look);
      tick.style.left = `${left}%`;
      track.prepend(tick);
    }
  }
}
baseline?.addEventListener("change", () => {
  document.getElementById("beside").textContent = baseline.value ? `relative to ${baseline.value}` : "";
  for (const chart of all(".chart")) beside(chart, baseline.value);
});

// The history: every word must be in a system's name, or in a cell's row.
const past = document.getElementById("past-filter");
past?.addEventListener("input", () => {
  const words = past.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0, total = 0;
  for (const system of all(".past")) {
    const name = system.querySelector("b").textContent;
    let some = false;
    for (const row of all("tbody tr", system)) {
      const text = `${name} ${row.cells[0].textContent} ${row.cells[4].textContent}`.toLowerCase();
      const fits = words.every((word) => text.includes(word));
      row.hidden = !fits;
      total += 1;
      count += fits ? 1 : 0;
      some ||= fits;
    }
    system.hidden = !some;
    if (words.length && some) system.open = true;
  }
  document.getElementById("past-shown").textContent = words.length ? `${count} of ${total} shown` : "";
});

const keys = document.getElementById("keys");
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], select");
  if (keys.open) return;
  if (event.key === "Escape") {
    if (event.target.matches("input[type=search]")) {
      event.preventDefault();
      event.target.value = "";
      event.target.dispatchEvent(new Event("input"));
      event.target.blur();
    } else close();
  } else if (typing || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  } else if (event.key === "/" && filter) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "?") {
    keys.showModal();
  } else if (event.target.matches(".cell") && /^(Arrow|Home$|End$)/.test(event.key)) {
    event.preventDefault();
    next(event.target, event.key)?.focus();
  }
});
for (const button of all("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      // A page from a file may not write there: select it, so that the user can.
      getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      button.textContent = "selected";
    }
  });
}
