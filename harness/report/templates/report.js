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

// Filter: every word must be in the row's system, or in a cell's backend, verdict or path.
const filter = document.getElementById("filter"), shown = document.getElementById("shown");
function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0, total = 0;
  for (const row of all(".matrix tbody tr")) {
    let some = false;
    for (const cell of all(".cell", row)) {
      const text = cell.title.toLowerCase();
      const fits = words.every((word) => text.includes(word));
      cell.style.visibility = fits ? "" : "hidden";
      total += 1;
      count += fits ? 1 : 0;
      some ||= fits;
    }
    row.hidden = !some;
  }
  if (shown) shown.textContent = words.length ? `${count} of ${total} shown` : "";
}
filter?.addEventListener("input", applyFilter);

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
  document.getElementById("beside").textContent = baseline.value ? `beside ${baseline.value}` : "";
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

// Sort the systems by a backend: those that differ first, then the nearest to their tolerance.
for (const button of all(".sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = button.closest("table");
    const rising = head.getAttribute("aria-sort") !== "ascending";
    all("th", table.tHead).forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const rank = (row) => {
      const cell = row.children[Number(button.dataset.column)].querySelector(".cell");
      if (!cell) return 3;
      const headroom = Number(cell.style.getPropertyValue("--h"));
      return cell.matches(".agrees") ? 1 + headroom : cell.matches(".silent") ? 2.5 : 0;
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => (rank(a) - rank(b)) * (rising ? 1 : -1));
    table.tBodies[0].append(...rows);
  });
}

// A cell's checks.
const panel = document.getElementById("panel");
let opened = null;
function close() {
  if (!opened) return;
  panel.hidden = true;
  opened.setAttribute("aria-expanded", "false");
  opened.focus();
  opened = null;
}
function bar(error, tolerance) {
  const element = made("span", "", "bar");
  const share = error === 0 ? 0 : Math.log10(Number(error) / tolerance);
  // A logarithmic bar from a ten-thousandth of the tolerance to a hundred times it.
  const at = (decades) => Math.max(0, Math.min(1, (decades + 4) / 6));
  const fill = made("i"), limit = made("b");
  fill.style.width = error === 0 ? "0" : `${100 * (Number.isFinite(share) ? at(share) : 1)}%`;
  limit.style.left = `${100 * at(0)}%`;
  if (!(Number(error) <= tolerance)) element.classList.add("over");
  element.append(fill, limit);
  return element;
}
function checkRow(row) {
  const [check, verdict, error, yardstick, tolerance, worst, held, seconds, detail, counts, growth] = row;
  const line = made("tr");
  line.append(made("td", data.names[check]), made("td", data.names[verdict]));
  const measure = made("td");
  if (error !== null && error !== undefined) measure.append(bar(error, tolerance));
  line.append(measure, made("td", number(error)), made("td", number(tolerance)), made("td", number(yardstick)));
  line.append(made("td", worst === null || worst === undefined ? (held ? `held ${held}` : "") : data.names[worst]));
  line.append(made("td", seconds ? `${seconds} s` : ""));
  const seen = made("td", detail ?? "");
  if (counts?.length) seen.append(made("br"), histogram(counts));
  if (growth?.length) seen.append(made("br"), `by step: ${growth.map(([n, e]) => `${n}: ${number(e)}`).join(", ")}`);
  line.append(seen);
  return line;
}
function open(cell) {
  if (opened === cell) return close();
  opened?.setAttribute("aria-expanded", "false");
  opened = cell;
  cell.setAttribute("aria-expanded", "true");
  const entry = data.entries[cell.dataset.entry];
  panel.replaceChildren();
  const shut = made("button", "close", "close");
  shut.type = "button";
  shut.addEventListener("click", close);
  panel.append(shut);
  for (const one of entry.dtypes) {
    panel.append(made("h3", `${entry.spec} · ${entry.backend} · ${one.dtype} · ${entry.path}: ${one.verdict}`));
    panel.append(made("p", `${data.names[one.version]}; ${data.names[one.layers]}; ${one.seconds} s`));
    if (one.location) panel.append(made("p", one.location));
    const table = made("table", "", "checks"), head = made("tr"), body = made("tbody");
    ["check", "verdict", "error | tolerance", "error", "allowed", "yardstick", "worst tensor", "time", "seen"].forEach((label, column) => {
      const th = made("th"), button = made("button", label, "sort");
      button.type = "button";
      th.scope = "col";
      button.addEventListener("click", () => sortChecks(table, column, th));
      th.append(button);
      head.append(th);
    });
    const top = made("thead");
    top.append(head);
    body.append(...one.checks.map(checkRow));
    table.append(top, body);
    const box = made("div", "", "scroll");
    box.append(table);
    panel.append(box);
  }
  panel.hidden = false;
  cell.closest(".scroll").after(panel);
  panel.focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
}
function sortChecks(table, column, head) {
  const rising = head.getAttribute("aria-sort") !== "ascending";
  all("th", table.tHead).forEach((th) => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const key = (row) => {
    const text = row.children[column === 2 ? 3 : column].textContent;
    const value = Number.parseFloat(text);
    return Number.isNaN(value) ? text : value;
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const x = key(a), y = key(b);
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    return rising ? order : -order;
  });
  table.tBodies[0].append(...rows);
}
all(".cell").forEach((cell) => {
  cell.setAttribute("aria-expanded", "false");
  cell.addEventListener("click", () => open(cell));
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea");
  if (event.key === "Escape") {
    if (typing && filter) { filter.value = ""; applyFilter(); filter.blur(); } else close();
  } else if (typing || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  } else if (event.key === "/" && filter) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "?") {
    document.getElementById("keys").showModal();
  } else if (event.key.startsWith("Arrow") && event.target.matches(".cell")) {
    event.preventDefault();
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const td = event.target.closest("td"), rows = all("tbody tr:not([hidden])", td.closest("table"));
    const row = rows[rows.indexOf(td.parentElement) + down];
    row?.children[td.cellIndex + right]?.querySelector(".cell")?.focus();
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
