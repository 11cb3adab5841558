// The table of systems by backends: a filter, an order, the way of the keyboard, a cell's checks.
// One cell of a table is on the way of the tabulator: the one that was at last, or the first that is
// seen. The arrows lead to the others.
const allTables = all(".matrix");
const seen = (cell) => Boolean(cell) && cell.style.visibility !== "hidden" && cell.offsetParent !== null;
function stop(table) {
  const cells = all(".cell", table);
  const at = cells.find((cell) => cell.tabIndex === 0 && cell.style.visibility !== "hidden")
    ?? cells.find((cell) => cell.style.visibility !== "hidden" && !cell.closest("tr").hidden);
  for (const cell of cells) cell.tabIndex = cell === at ? 0 : -1;
}
function next(from, key) {
  const td = from.closest("td"), rows = all("tbody tr:not([hidden])", td.closest("table"));
  const line = key === "ArrowUp" || key === "ArrowDown"
    ? rows.map((row) => row.children[td.cellIndex]) : [...td.parentElement.children];
  const at = line.indexOf(td);
  const back = line.slice(0, at).reverse(), on = line.slice(at + 1);
  const ways = { ArrowUp: back, ArrowLeft: back, ArrowDown: on, ArrowRight: on, Home: line, End: [...line].reverse() };
  return ways[key]?.map((each) => each.querySelector(".cell")).find(seen);
}
let opened = null;

// What is looked at: all dtypes, or the one that is chosen; 0 for all.
const dtypes = all("[name=dtype]");
const choice = () => Math.max(0, dtypes.findIndex((radio) => radio.checked));
const GROUPS = ["differs", "broken", "known", "agrees", "silent"];
function looks(cell) {
  const n = choice();
  const group = GROUPS.find((name) => cell.classList.contains(n ? `d${n}-${name}` : name));
  return [group, Number(cell.style.getPropertyValue(`--h${n}`))];
}
function told(cell) {
  const n = choice(), entry = data.entries[cell.dataset.entry];
  if (!n) return `${cell.title} ${entry.path}`.toLowerCase();
  const name = dtypes[n].closest("label").textContent;
  const verdict = entry.dtypes.find((one) => one.dtype === name)?.verdict ?? "";
  return `${entry.spec} on ${entry.backend}: ${verdict} ${entry.path}`.toLowerCase();
}

// Filter: every word must be in the row's system, or in a cell's backend, verdict or path.
const filter = document.getElementById("filter"), shown = document.getElementById("shown");
function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0, total = 0;
  for (const row of all(".matrix tbody tr")) {
    let some = false;
    for (const cell of all(".cell", row)) {
      const text = words.length ? told(cell) : "";
      const fits = words.every((word) => text.includes(word));
      cell.style.visibility = fits ? "" : "hidden";
      total += 1;
      count += fits ? 1 : 0;
      some ||= fits;
    }
    row.hidden = !some;
  }
  if (shown) shown.textContent = words.length ? `${count} of ${total} shown` : "";
  if (opened && !seen(opened)) close();
  allTables.forEach(stop);
}
filter?.addEventListener("input", applyFilter);

// Sort the systems by a backend: those that differ first, then the nearest to their tolerance.
for (const button of all(".sort")) {
  button.addEventListener("click", () => {
    const rank = (row) => {
      const cell = row.children[Number(button.dataset.column)].querySelector(".cell");
      const [group, headroom] = cell ? looks(cell) : [];
      return { differs: 0, broken: 0.5, known: 0.9, agrees: 1 + headroom, silent: 2.5 }[group] ?? 3;
    };
    sortRows(button.closest("th"), (a, b) => rank(a) - rank(b));
  });
}
function sortRows(head, order) {
  const table = head.closest("table"), rising = head.getAttribute("aria-sort") !== "ascending";
  all("th", table.tHead).forEach((th) => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].sort((a, b) => (rising ? order(a, b) : order(b, a)));
  table.tBodies[0].append(...rows);
}

// A cell's checks.
const panel = document.getElementById("panel");
function close() {
  if (!opened) return;
  const inside = panel.contains(document.activeElement) || document.activeElement === document.body;
  panel.hidden = true;
  opened.setAttribute("aria-expanded", "false");
  if (inside) opened.focus();
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
      button.addEventListener("click", () => sortChecks(th, column));
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
function sortChecks(head, column) {
  const key = (row) => {
    const text = row.children[column === 2 ? 3 : column].textContent;
    const value = Number.parseFloat(text);
    return Number.isNaN(value) ? text : value;
  };
  sortRows(head, (a, b) => {
    const x = key(a), y = key(b);
    return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
  });
}
all(".cell").forEach((cell) => {
  cell.setAttribute("aria-expanded", "false");
  cell.setAttribute("aria-controls", "panel");
  cell.addEventListener("click", () => open(cell));
  cell.addEventListener("focus", () => {
    all(".cell[tabindex='0']", cell.closest("table")).forEach((other) => { other.tabIndex = -1; });
    cell.tabIndex = 0;
  });
});
allTables.forEach(stop);
// A cell of a path that is not shown any more has no checks to be seen.
dtypes.forEach((radio) => radio.addEventListener("change", applyFilter));
all("[name=path]").forEach((radio) => radio.addEventListener("change", () => { if (!seen(opened)) close(); }));
