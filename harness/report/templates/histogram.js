// How far the entries of a check are off, by powers of ten of what is allowed: a column each, the
// first for those that are exact. Of its own tools `made` stands in report.js.
function histogram(counts) {
  const element = made("span", "", "spread"), most = Math.max(...counts);
  const middle = (counts.length - 3) / 2 + 2;
  counts.forEach((count, place) => {
    const column = made("i");
    column.style.height = count ? `${Math.max(6, (100 * Math.log1p(count)) / Math.log1p(most))}%` : "0";
    if (place >= middle) column.classList.add("over");
    column.title = place === 0 ? `${count} exact` : `${count} at 1e${place - middle} of the tolerance`;
    element.append(column);
  });
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", `histogram of the error: ${counts.join(", ")}`);
  return element;
}
