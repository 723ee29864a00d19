"use strict";
// Decisions of readers: kept by the server of `detector review`, or else in this browser and in decisions.csv.
// A decision is never changed; a later one of the same reader on the same thing takes its place in what is shown.

const RUN = JSON.parse(document.getElementById("run").textContent);
const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function counted(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

const COLUMNS = [
  "decision_id", "time", "reviewer", "version", "case_id", "image_id", "target", "cluster_id", "row_px", "col_px",
  "radius_px", "decision", "comment", "blind",
];
const WORDS = {
  cluster: ["accept", "reject", "unsure", ""],
  case: ["yes", "no", "unsure", ""],
  missed: ["added", "withdrawn"],
};

// What a decision is about. A cluster is told by its place too: another operating point numbers clusters anew.
function subject(row) {
  if (row.target === "case") return ["case", row.case_id, row.blind].join("|");
  const place = row.target === "cluster" ? [row.row_px, row.col_px] : [];
  return [row.target, row.image_id, row.cluster_id, ...place].join("|");
}

function isDecision(row) {
  return Boolean(row.decision_id && row.reviewer && row.case_id && (WORDS[row.target] || []).includes(row.decision)
    && ["true", "false"].includes(row.blind) && !Number.isNaN(Date.parse(row.time)));
}

// ------------------------------------------------------------------------------------------------ decisions.csv

const FORMULA = /(^|[;\r\n])(?=[^\S\r\n]*[=+\-@＝＋－＠])/g;
const GUARDED = /(^|[;\r\n])'(?=[^\S\r\n]*[=+\-@＝＋－＠])/g;

function toCsv(rows) {
  const cell = (value) => {
    const text = String(value ?? "").replace(FORMULA, "$1'");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name]))]
    .map((line) => line.map(cell).join(",") + "\r\n").join("");
}

function fromCsv(text) {
  const lines = [[""]];
  let quoted = false;
  for (let i = text.charCodeAt(0) === 0xfeff ? 1 : 0; i < text.length; i++) {
    const line = lines[lines.length - 1];
    const letter = text[i];
    if (quoted) {
      if (letter !== '"') line[line.length - 1] += letter;
      else if (text[i + 1] === '"') line[line.length - 1] += text[++i];
      else quoted = false;
    } else if (letter === '"') quoted = true;
    else if (letter === ",") line.push("");
    else if (letter === "\n") lines.push([""]);
    else if (letter !== "\r") line[line.length - 1] += letter;
  }
  const names = lines.shift();
  const missing = COLUMNS.filter((name) => !names.includes(name));
  if (missing.length) throw new Error(`it has no column ${missing.join(", ")}`);
  const read = lines.filter((line) => line.length === names.length);
  const rows = read.map((line) => Object.fromEntries(COLUMNS.map((name) =>
    [name, line[names.indexOf(name)].replace(GUARDED, "$1")])));
  const good = rows.filter(isDecision);
  return { rows: good, left: lines.filter((line) => line.length > 1).length - good.length };
}

// ------------------------------------------------------------------------------------------------------ storage

// Browsers may refuse storage to pages from disk, or keep one for each page: then decisions.csv carries decisions.
const kept = {
  works: true,
  read(name, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(`detector:${RUN.key}:${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  write(name, value) {
    try {
      localStorage.setItem(`detector:${RUN.key}:${name}`, JSON.stringify(value));
      return true;
    } catch {
      this.works = false;
      return false;
    }
  },
};

function merged(...lists) {
  const rows = new Map();
  for (const list of lists) for (const row of list) if (!rows.has(row.decision_id)) rows.set(row.decision_id, row);
  return [...rows.values()].sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0));
}

function hex(bytes) {
  return [...crypto.getRandomValues(new Uint8Array(bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

const decisions = {
  rows: [],
  session: null, // of `detector review`, or null from disk
  caseId: null, // of a case page
  unsaved: 0,
  opening: false, // until it is known whether the server holds readers to blind mode
  listeners: [],

  get reviewer() {
    return byId("reviewer").value.replace(/[\p{C}\p{Z}]+/gu, " ").trim();
  },

  async open(caseId = null) {
    this.caseId = caseId;
    byId("reviewer").value = kept.read("reviewer", "");
    if (location.protocol.startsWith("http")) this.session = await this.ask("/api/session").catch(() => null);
    this.opening = false;
    document.body.classList.add(this.session ? "served" : "from-disk");
    this.wire();
    if (this.session) await this.flush();
    await this.refresh();
  },

  wire() {
    byId("reviewer").addEventListener("change", () => {
      kept.write("reviewer", this.reviewer);
      this.refresh();
    });
    byId("load").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", async (event) => {
      const [file] = event.target.files;
      if (file) await this.load(await file.text());
      event.target.value = "";
    });
    byId("save").addEventListener("click", () => this.save());
    addEventListener("storage", () => this.refresh());
    addEventListener("focus", () => this.refresh());
    addEventListener("online", () => this.flush());
    addEventListener("beforeunload", (event) => {
      if (this.unsaved && !kept.works) event.preventDefault();
    });
  },

  async ask(path, body) {
    const answer = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: { "X-Detector": "1", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body && JSON.stringify(body),
      cache: "no-store",
    });
    if (!answer.ok) {
      const why = await answer.json().catch(() => ({}));
      throw Object.assign(new Error(why.error || `status ${answer.status}`), { status: answer.status });
    }
    return answer.json();
  },

  async refresh() {
    if (!this.session) {
      this.rows = merged(kept.read("decisions", []), this.rows);
    } else if (this.reviewer) {
      const query = new URLSearchParams({ reviewer: this.reviewer, ...(this.caseId ? { case_id: this.caseId } : {}) });
      try {
        const { decisions: rows } = await this.ask(`/api/decisions?${query}`);
        const waiting = kept.read("outbox", []).filter((row) => !this.caseId || row.case_id === this.caseId);
        this.rows = merged(rows, waiting);
      } catch (error) {
        this.say(`cannot reach the server: ${error.message}`, true);
      }
    } else {
      this.rows = [];
    }
    if (this.session) {
      const query = `?${new URLSearchParams({ reviewer: this.reviewer })}`;
      byId("export").href = `/decisions.csv${query}`;
      byId("agreement").href = `/agreement${query}`;
    }
    for (const listener of this.listeners) listener();
  },

  // Keeps a decision. Resolves when it is where it outlives this page, or says that it is not.
  async add(fields) {
    const row = {
      decision_id: hex(16), time: new Date().toISOString(), reviewer: this.reviewer, version: RUN.version,
      case_id: this.caseId, image_id: "", cluster_id: "", row_px: "", col_px: "", radius_px: "", comment: "",
      ...fields, blind: String(Boolean(fields.blind)),
    };
    this.rows = merged(this.rows, [row]);
    if (this.session) {
      kept.write("outbox", merged(kept.read("outbox", []), [row]));
      this.pending = merged(this.pending, [row]);
      for (const listener of this.listeners) listener();
      await this.flush();
      await this.refresh();
    } else {
      kept.write("decisions", merged(kept.read("decisions", []), this.rows));
      this.unsaved += 1;
      this.say(kept.works ? "kept in this browser" : "not kept by this browser: save decisions.csv", !kept.works);
      for (const listener of this.listeners) listener();
    }
  },

  // What is not acknowledged by the server stays in the outbox and is sent again: decision_id tells repeats.
  pending: [],
  async flush() {
    const outbox = merged(kept.read("outbox", []), this.pending);
    if (!outbox.length) return;
    try {
      await this.send(outbox);
      this.say("saved");
    } catch (error) {
      // one that is refused must not hold up the others
      if (error.status === 400) for (const row of outbox) await this.send([row]).catch(() => null);
      this.say(`not saved yet: ${error.message}; trying again`, true);
      clearTimeout(this.again);
      this.again = setTimeout(() => this.flush(), 3000);
    }
  },

  async send(rows) {
    const { saved } = await this.ask("/api/decisions", { decisions: rows });
    const left = (row) => !saved.includes(row.decision_id);
    this.pending = this.pending.filter(left);
    kept.write("outbox", kept.read("outbox", []).filter(left));
  },

  async load(text) {
    try {
      const { rows, left } = fromCsv(text);
      this.rows = merged(this.rows, rows);
      kept.write("decisions", merged(kept.read("decisions", []), rows));
      this.say(`${counted(rows.length, "decision")} loaded${left ? `, ${left} ${left === 1 ? "line is no decision" : "lines are no decisions"}` : ""}`, Boolean(left));
    } catch (error) {
      this.say(`not loaded: ${error.message}`, true);
    }
    for (const listener of this.listeners) listener();
  },

  save() {
    const url = URL.createObjectURL(new Blob([toCsv(merged(kept.read("decisions", []), this.rows))], { type: "text/csv" }));
    element("a", { href: url, download: "decisions.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    this.unsaved = 0;
    this.say("decisions.csv saved");
  },

  say(text, bad = false) {
    byId("saved").textContent = text;
    byId("saved").classList.toggle("bad", bad);
  },

  // ---------------------------------------------------------------------------------------- what is shown

  own(wanted) {
    return this.rows.filter((row) => row.reviewer === this.reviewer && subject(row) === wanted);
  },

  // The decision that stands, with the latest comment; null before there is one.
  standing(wanted) {
    const rows = this.own(wanted);
    const decided = rows.filter((row) => row.decision);
    if (!rows.length) return null;
    const last = decided[decided.length - 1] || rows[rows.length - 1];
    return { ...last, comment: rows[rows.length - 1].comment, n: rows.length };
  },

  // Decisions of others, once there is one of one's own on the same thing.
  others(wanted) {
    if (!this.own(wanted).some((row) => row.decision)) return [];
    const latest = new Map();
    for (const row of this.rows) {
      if (row.reviewer !== this.reviewer && row.decision && subject(row) === wanted) latest.set(row.reviewer, row);
    }
    return [...latest.values()];
  },
};

// A name is asked for before the first decision.
function needsReviewer() {
  if (decisions.reviewer) return false;
  decisions.say("first your name or initials, please", true);
  byId("reviewer").focus();
  return true;
}

function typing(event) {
  const { target } = event;
  return event.ctrlKey || event.metaKey || event.altKey
    || (target instanceof HTMLInputElement && !["range", "checkbox"].includes(target.type))
    || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}
