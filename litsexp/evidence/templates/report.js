"use strict";
// A click on a column's title sorts its table: numbers from the largest, texts from A; what is undefined comes last.
const number = /^[−+-]?[\d,]*\.?\d+(e[+-]\d+)?/;
const valueOf = (row, column) => {
  const text = row.cells[column].innerText.split("\n")[0].trim();
  const found = row.cells[column].classList.contains("n") && text.match(number);
  return found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : text === "–" ? NaN : text;
};
const later = (a, b, sign) => {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
};
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => {
      const first = title.classList.contains("n") ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = title.getAttribute("aria-sort") === first ? other : first;
      titles.forEach((one) => one.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", order);
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
      rows.sort(([a], [b]) => later(a, b, order === "ascending" ? 1 : -1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
// The contents mark the section in sight.
const links = new Map([...document.querySelectorAll("nav.contents a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-15% 0px -75% 0px" });
document.querySelectorAll("section[id]").forEach((section) => seen.observe(section));
