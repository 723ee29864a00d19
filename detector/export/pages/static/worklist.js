"use strict";
// The worklist: all cases are in the page, the rows in sight are in the document.

const LEVELS = ["", "low", "medium", "high"];
const CASES = JSON.parse(byId("data").textContent).map((values, rank) => {
  const [id, stem, date, views, sides, review, clusters, micro, macro, level, reasons, limits, paths, page, thumbnail] = values;
  const words = [id, date, ...views, ...reasons, ...limits, paths].join(" ").toLowerCase();
  return { rank, id, stem, date, views, sides, review, clusters, micro, macro, level, reasons, limits, page, thumbnail, words };
});
const compareIds = new Intl.Collator("en", { numeric: true }).compare;
const CHOICES = ["search", "flag", "side", "kind", "read"];

// name, words of its head, key that it is sorted by, cells
const TABLE = [
  ["rank", "#", (a) => a.rank],
  ["picture", "Views", null],
  ["case", "Case", (a, b) => compareIds(a.id, b.id)],
  ["review", "Review", (a) => [-a.review, a.rank]],
  ["level", "Rank", (a) => [-a.level, a.rank]],
  ["micro", "Micro", (a) => [-a.micro, a.rank]],
  ["macro", "Macro", (a) => [-a.macro, a.rank]],
  ["why", "Why", null],
  ["mine", "My reading", (a) => [mine(a).n, a.rank]],
];

const state = { shown: CASES, sort: "rank", backwards: false, chosen: 0, drawn: new Map() };
let readings = new Map(); // case id -> { n, words }
const height = () => Math.round(5.5 * parseFloat(getComputedStyle(document.documentElement).fontSize));
let rowHeight = height();

function mine(row) {
  return readings.get(row.id) || { n: 0, words: "" };
}

function countReadings() {
  const cases = new Map();
  for (const row of decisions.rows) {
    if (row.reviewer !== decisions.reviewer || !row.decision) continue;
    if (!cases.has(row.case_id)) cases.set(row.case_id, new Map());
    cases.get(row.case_id).set(subject(row), row);
  }
  readings = new Map();
  for (const [id, rows] of cases) {
    const count = {};
    let opinion = "";
    for (const row of rows.values()) {
      if (row.target === "case") opinion = `${row.blind === "true" ? "blind: " : ""}${row.decision}`;
      else count[row.decision] = (count[row.decision] || 0) + 1;
    }
    const words = ["accept", "reject", "unsure", "added"].filter((w) => count[w]).map((w) => `${count[w]} ${w}`);
    readings.set(id, { n: rows.size, words: [...words, opinion].filter(Boolean).join(", ") });
  }
}

const isBlind = () => byId("blind").checked || decisions.opening;

function filter() {
  const values = Object.fromEntries(CHOICES.map((name) => [name, byId(name).value]));
  const words = values.search.toLowerCase().split(/\s+/).filter(Boolean);
  const blind = isBlind();
  state.shown = CASES.filter((row) =>
    (blind || ((values.flag === "" || (row.review > 0) === (values.flag === "1"))
      && (values.kind === "" || row[values.kind] > 0)))
    && (values.side === "" || row.sides.includes(values.side))
    && (values.read === "" || (mine(row).n > 0) === (values.read === "1"))
    && words.every((word) => row.words.includes(word)));
  const [, , key] = TABLE.find(([name]) => name === (blind ? "case" : state.sort));
  state.shown.sort((a, b) => {
    if (key.length === 2) return key(a, b);
    const [left, right] = [[key(a)].flat(), [key(b)].flat()];
    return left[0] - right[0] || (left[1] ?? 0) - (right[1] ?? 0);
  });
  if (state.backwards) state.shown.reverse();
  byId("shown").textContent = state.shown.length === CASES.length ? "" : `${state.shown.length} of ${CASES.length}`;
  byId("nothing").hidden = state.shown.length > 0;
  byId("table").setAttribute("aria-rowcount", state.shown.length + 1);
  byId("body").style.height = `${state.shown.length * rowHeight}px`;
  state.chosen = Math.max(0, Math.min(state.chosen, state.shown.length - 1));
  for (const made of state.drawn.values()) made.remove();
  state.drawn.clear();
  draw();
}

// ---------------------------------------------------------------------------------------------------------- rows

function head() {
  byId("head").replaceChildren(...TABLE.map(([name, words, key]) => {
    const sorted = state.sort === name && !isBlind();
    const order = sorted ? (state.backwards ? "descending" : "ascending") : "none";
    const inner = key
      ? element("button", { type: "button", onclick: () => sort(name) }, words, sorted ? (state.backwards ? " ▴" : " ▾") : "")
      : words;
    return element("span", { role: "columnheader", class: name, "aria-sort": key ? order : null }, inner);
  }));
}

function sort(name) {
  state.backwards = state.sort === name && !state.backwards;
  state.sort = name;
  head();
  filter();
}

function cells(row) {
  const blind = isBlind();
  const hidden = (value) => (blind ? "" : value);
  const flagged = row.review > 0;
  const name = row.page
    ? element("a", { href: `report/${row.stem}.html${blind ? "#blind" : ""}`, tabindex: -1 }, row.id)
    : element("span", {}, row.id);
  const about = [row.date, row.views.join(", ")].filter(Boolean);
  const picture = row.thumbnail && !blind
    ? element("img", { src: `report/thumbnails/${row.stem}.jpg`, alt: "", loading: "lazy", decoding: "async" })
    : element("span", { class: "none" }, row.page ? "" : "no pictures");
  const why = [
    ...row.reasons.slice(0, 3).map((reason) => element("span", {}, reason)),
    row.reasons.length > 3 ? element("span", {}, `and ${row.reasons.length - 3} more`) : null,
    row.limits.length ? element("span", { class: "limits" }, `Limits: ${row.limits.join(", ")}`) : null,
  ];
  return {
    rank: hidden(row.rank + 1),
    picture,
    case: element("span", {}, name, ...about.map((words) => element("small", { title: words }, words))),
    review: hidden(flagged ? element("b", { class: "flagged" }, `${row.review} of ${row.clusters}`)
      : row.clusters ? `0 of ${row.clusters}` : "none"),
    level: hidden(row.level ? element("span", { class: `pill ${flagged ? "review" : ""}` }, LEVELS[row.level]) : ""),
    micro: hidden(row.micro),
    macro: hidden(row.macro),
    why: blind ? "" : element("span", {}, ...why),
    mine: mine(row).words,
  };
}

function drawRow(index) {
  const row = state.shown[index];
  const values = cells(row);
  const made = element(
    "div",
    { role: "row", class: `row${row.review && !isBlind() ? " review" : ""}`, "aria-rowindex": index + 2, "data-index": index },
    ...TABLE.map(([name]) => element("span", { role: "gridcell", class: name }, values[name])),
  );
  made.style.transform = `translateY(${index * rowHeight}px)`;
  made.style.height = `${rowHeight}px`;
  made.classList.toggle("chosen", index === state.chosen);
  return made;
}

function draw() {
  const table = byId("table");
  const top = table.scrollTop;
  const first = Math.max(0, Math.floor(top / rowHeight) - 6);
  const last = Math.min(state.shown.length, Math.ceil((top + table.clientHeight) / rowHeight) + 6);
  for (const [index, made] of state.drawn) {
    if (index < first || index >= last) {
      made.remove();
      state.drawn.delete(index);
    }
  }
  const fresh = [];
  for (let index = first; index < last; index++) {
    if (!state.drawn.has(index)) {
      state.drawn.set(index, drawRow(index));
      fresh.push(state.drawn.get(index));
    }
  }
  byId("body").append(...fresh);
}

function choose(index, scroll = true) {
  state.drawn.get(state.chosen)?.classList.remove("chosen");
  state.chosen = Math.max(0, Math.min(index, state.shown.length - 1));
  const table = byId("table");
  if (scroll) {
    const room = table.clientHeight - byId("head").offsetHeight - rowHeight;
    const top = state.chosen * rowHeight;
    table.scrollTop = Math.max(Math.min(table.scrollTop, top), top - room);
    draw();
  }
  const made = state.drawn.get(state.chosen);
  made?.classList.add("chosen");
  if (made) {
    made.id = `row-${state.chosen}`;
    table.setAttribute("aria-activedescendant", made.id);
  }
}

// Case pages go on to the next case in the order in which the list was left.
function keepOrder() {
  kept.write("order", state.shown.filter((row) => row.page).slice(0, 20_000).map((row) => row.stem));
}

function openChosen() {
  const row = state.shown[state.chosen];
  keepOrder();
  if (row?.page) location.href = `report/${row.stem}.html${isBlind() ? "#blind" : ""}`;
}

// -------------------------------------------------------------------------------------------------------- events

for (const name of CHOICES) {
  byId(name).addEventListener("input", () => {
    byId("table").scrollTop = 0;
    state.chosen = 0;
    filter();
    keepChoices();
  });
}
function keepChoices() {
  kept.write("filters", Object.fromEntries(CHOICES.map((name) => [name, byId(name).value])));
}
byId("reset").closest("form").addEventListener("submit", (event) => event.preventDefault());
byId("reset").addEventListener("click", (event) => {
  event.preventDefault();
  for (const name of CHOICES) byId(name).value = "";
  filter();
  keepChoices();
});
byId("blind").addEventListener("change", () => {
  kept.write("blind", isBlind());
  head();
  filter();
});
byId("table").addEventListener("pointerdown", (event) => event.target.closest("a") && keepOrder());
byId("table").addEventListener("scroll", draw, { passive: true });
byId("table").addEventListener("click", (event) => {
  const made = event.target.closest(".row");
  if (!made) return;
  choose(Number(made.dataset.index), false);
  if (!event.target.closest("a")) openChosen();
});
addEventListener("resize", () => {
  rowHeight = height();
  filter();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.id === "search") byId("table").focus();
  if (typing(event)) return;
  const page = Math.max(1, Math.floor(byId("table").clientHeight / rowHeight) - 1);
  const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key in steps) choose(Math.max(0, Math.min(CASES.length, state.chosen + steps[event.key])));
  else if (event.key === "Enter" && !event.target.closest("button, a, input")) openChosen();
  else if (event.key === "/") byId("search").focus();
  else return;
  event.preventDefault();
});

function start() {
  for (const [name, value] of Object.entries(kept.read("filters", {}))) if (CHOICES.includes(name)) byId(name).value = value;
  byId("blind").checked = kept.read("blind", false);
  decisions.opening = location.protocol.startsWith("http");
  head();
  filter();
  performance.mark("rows");
  const index = state.shown.findIndex((row) => row.stem === location.hash.slice(1));
  if (index >= 0) choose(index);
  byId("table").focus({ preventScroll: true });
  decisions.listeners.push(() => {
    countReadings();
    if (decisions.session?.blind) {
      byId("blind").checked = true;
      byId("blind").disabled = true;
    }
    head();
    filter();
  });
  decisions.open();
}
start();
