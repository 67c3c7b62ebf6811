"use strict";

const root = document.documentElement;

const TURNS = /[\u202a-\u202e\u2066-\u2069]/g; // bidirectional controls, which reorder text

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text.replace(TURNS, (sign) => `U+${sign.codePointAt(0).toString(16).toUpperCase()}`);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Light and dark

const look = document.getElementById("look");
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.style.colorScheme ? root.style.colorScheme === "dark" : systemIsDark.matches;
}

function nameTheOther() {
  look.textContent = isDark() ? "Light look" : "Dark look";
}

look.addEventListener("click", () => {
  root.style.colorScheme = isDark() ? "light" : "dark";
  try {
    localStorage.setItem("look", root.style.colorScheme);
  } catch {
    // then it lasts only as long as the page
  }
  nameTheOther();
});
systemIsDark.addEventListener("change", nameTheOther);
nameTheOther();

// Contents: open beside the page, folded above it

document.querySelector("nav details").open = matchMedia("(min-width: 90rem)").matches;

// On paper nothing can be unfolded

addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("main details")) folded.open = true;
});

// A frame with overflow is marked, and scrolls by keyboard

function frame(box) {
  const hidden = box.scrollWidth - box.clientWidth;
  box.classList.toggle("cut", box.scrollLeft < hidden - 1);
  if (hidden > 0) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
}

const sizes = new ResizeObserver((changes) => changes.forEach((change) => frame(change.target)));
for (const box of document.querySelectorAll(".scroll")) {
  sizes.observe(box);
  box.addEventListener("scroll", () => frame(box), { passive: true });
}

// Sorting: numbers descending, names ascending, then reversed, then the original order

const NEXT = { number: [null, "descending", "ascending"], name: [null, "ascending", "descending"] };

function sort(heading) {
  const table = heading.closest("table");
  const body = table.tBodies[0];
  table.original ??= [...body.rows];
  const steps = NEXT[heading.classList.contains("number") ? "number" : "name"];
  const order = steps[(steps.indexOf(heading.getAttribute("aria-sort")) + 1) % 3];
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  if (order) heading.setAttribute("aria-sort", order);
  body.append(...(order ? sorted(table.original, heading, order) : table.original));
}

function sorted(lines, heading, order) {
  const sign = order === "ascending" ? 1 : -1;
  const isNumber = heading.classList.contains("number");
  const key = (line) => {
    const cell = line.cells[heading.cellIndex];
    return isNumber ? Number(cell.dataset.value ?? NaN) : cell.textContent.trim();
  };
  return [...lines].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (!isNumber) return sign * a.localeCompare(b, "en", { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // last
    return sign * (a - b);
  });
}

for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

// Each table is one tab stop: arrow keys move between buttons, Home and End to the ends of a row

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function neighbour(table, button, [down, right]) {
  const cell = button.closest("th, td");
  let [line, place] = [cell.parentElement.rowIndex + down, cell.cellIndex + right];
  for (; table.rows[line]?.cells[place]; line += down, place += right) {
    const found = table.rows[line].cells[place].querySelector("button");
    if (found) return found;
  }
  return null;
}

function aim(table, button, key) {
  if (key in STEPS) return neighbour(table, button, STEPS[key]);
  const ofLine = button.closest("tr").querySelectorAll("button");
  return { Home: ofLine[0], End: ofLine[ofLine.length - 1] }[key];
}

for (const table of document.querySelectorAll("main table")) {
  let stop = table.querySelector("button");
  for (const button of table.querySelectorAll("button")) button.tabIndex = button === stop ? 0 : -1;
  table.addEventListener("focusin", ({ target }) => {
    stop.tabIndex = -1;
    stop = target;
    stop.tabIndex = 0;
  });
  table.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const next = aim(table, event.target, event.key);
    if (!next) return;
    event.preventDefault(); // or the page would scroll, too
    next.focus();
  });
}

// The rows behind a number

const stored = JSON.parse(document.getElementById("rows").textContent);
const dialog = document.querySelector("dialog");

function row(position) {
  const entries = stored.rows[position].map((value, place) => {
    const field = stored.fields[place];
    return [field, stored.nested.includes(field) ? stored.shared[value] : value];
  });
  return Object.fromEntries(entries);
}

function flat(value, path, found = new Map()) {
  const isBranch = value !== null && typeof value === "object" && !Array.isArray(value);
  if (!isBranch) return found.set(path, value);
  for (const [name, inner] of Object.entries(value)) flat(inner, path ? `${path}.${name}` : name, found);
  return found;
}

const GROUPS = [
  ["Number", /^(value|draws|strength|converged)$/],
  ["What was measured", /^(label|method|N|source|teacher|student|downstream|recipe|probe|labels_per_class|seed|suite)$/],
  ["Method", /^settings\./],
  ["Student", /^student_settings\./],
  ["Probe", /^probe_settings\./],
  ["Not the published default", /^changes\./],
  ["Stored", /^(num_|storage|file_bytes|compressed_bytes|distilled$)/],
  ["Logged while distilling: first and last quarter", /^losses\./],
  ["Cost", /(_seconds|_peak_mib|_steps)$/],
  ["Where and when", /./],
];

function written(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return String(value);
  if (typeof value === "number") return String(Number(value.toPrecision(7)));
  if (Array.isArray(value)) return value.map(written).join(", ") || "none";
  return String(value);
}

const OWNERS = /^(settings|student_settings|probe_settings|changes|losses|provenance)\./;

function line(path, values) {
  const texts = values.map((value) => (path === "labels_per_class" && value === null ? "all" : written(value)));
  const made = element("tr");
  made.append(element("th", path.replace(OWNERS, ""), { scope: "row" }));
  if (new Set(texts).size === 1) made.append(element("td", texts[0], { colspan: texts.length }));
  else made.append(...texts.map((text) => element("td", text)));
  return made;
}

const NAMES = ["label", "N", "student", "downstream", "probe", "labels_per_class", "seed"];

function headings(rows) {
  const telling = NAMES.filter((name) => new Set(rows.map((one) => one[name])).size > 1);
  return rows.map((one) => telling.map((name) => `${name} ${written(one[name])}`).join(", ") || "value");
}

function fill(table, rows) {
  const flats = rows.map((one) => flat(one, ""));
  const paths = new Set(flats.flatMap((one) => [...one.keys()]));
  table.replaceChildren(table.tHead);
  const head = element("tr");
  head.append(element("th", "field", { scope: "col" }), ...headings(rows).map((text) => element("th", text, { scope: "col" })));
  table.tHead.replaceChildren(head);
  for (const [title, pattern] of GROUPS) {
    const mine = [...paths].filter((path) => pattern.test(path));
    if (!mine.length) continue;
    const group = element("tbody");
    const heading = element("tr");
    heading.append(element("th", title, { scope: "rowgroup", colspan: rows.length + 1 }));
    group.append(heading, ...mine.map((path) => line(path, flats.map((one) => one.get(path)))));
    table.append(group);
    mine.forEach((path) => paths.delete(path));
  }
}

function words(node) {
  return node.textContent.replace(/[\s\u2007]+/g, " ").trim();
}

function open(button) {
  const cell = button.closest("td");
  const column = cell.closest("table").tHead.rows[0].cells[cell.cellIndex];
  const names = [cell.parentElement.cells[0], column].map(words).join(", ");
  document.getElementById("opened").textContent = `${names}: ${words(button)}`;
  fill(dialog.querySelector("table"), button.dataset.rows.split(" ").map((place) => row(Number(place))));
  dialog.showModal();
}

for (const button of document.querySelectorAll("button.open")) {
  button.addEventListener("click", () => open(button));
}
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // outside of it
});
