// What reviewers say of the clips. Every change is kept with its reviewer and its time; the newest of each field counts.
// A change is drawn at once. A served page sends it and says "saved" when the ledger has it; a file keeps it here.

const me = sheet.reviewer || memory.read("dop-reviewer") || "";
const FIELDS = ["verdict", "stars", "note"];
const WITHDRAWN = { verdict: "", stars: 0, note: "" };
const said = new Map(); // request id -> Map(reviewer -> {field: [value, time]})
const duelled = new Map(); // key of a duel's row -> {request_id, rival, duel}
const undoable = [];
const reviewStore = `dop-reviews:${sheet.run}`;
let lastAt = "";

/** A time as the ledger holds it, to the microsecond and never the same twice: texts sort as times do. */
function stamp() {
  const at = `${new Date().toISOString().slice(0, -1)}000Z`;
  const micros = at.slice(0, 23) === lastAt.slice(0, 23) ? Number(lastAt.slice(23, 26)) + 1 : 0;
  lastAt = `${at.slice(0, 23)}${String(micros).padStart(3, "0")}Z`;
  return lastAt;
}

/** Adds one change to what is known; says whether it was new. */
function takeIn(change) {
  const { request_id: request, who = "", at } = change;
  if (change.rival) {
    const key = [at, who, request, change.rival, change.duel].join("\u0000");
    if (duelled.has(key)) return false;
    duelled.set(key, change);
    rankings.clear();
    return true;
  }
  if (!said.has(request)) said.set(request, new Map());
  const by = said.get(request);
  if (!by.has(who)) by.set(who, {});
  const own = by.get(who);
  let isNew = false;
  for (const field of FIELDS) {
    const value = change[field];
    if (value === undefined || value === null || (own[field] && own[field][1] >= at)) continue;
    own[field] = [value, at];
    isNew = true;
  }
  const cell = byRequest.get(request);
  if (cell && isNew) cell.review = undefined;
  return isNew;
}

const NOTHING_SAID = Object.freeze({ verdict: "", stars: 0, note: "" });

/** What counts for a clip: of each field the newest that was not withdrawn. */
function reviewOf(cell) {
  if (!said.has(cell.requestId)) return NOTHING_SAID;
  if (cell.review) return cell.review;
  const found = { ...NOTHING_SAID };
  const newest = {};
  for (const own of said.get(cell.requestId).values())
    for (const [field, [value, at]] of Object.entries(own))
      if (value && !(newest[field] >= at)) [found[field], newest[field]] = [value, at];
  return (cell.review = found);
}

/** What I said of a clip myself. */
function ownOf(cell) {
  const own = said.get(cell.requestId)?.get(me) ?? {};
  return Object.fromEntries(FIELDS.map((field) => [field, own[field]?.[0] ?? WITHDRAWN[field]]));
}

/** What the others said: "ana: keep ★★★". */
function othersOf(cell) {
  const lines = [];
  for (const [who, own] of said.get(cell.requestId) ?? []) {
    const [verdict, stars, note] = FIELDS.map((field) => own[field]?.[0]);
    const words = [verdict, starsText(stars), note].filter(Boolean).join(" ");
    if (who !== me && words) lines.push(`${who || "no name"}: ${words}`);
  }
  return lines;
}

const canReview = (cell) => Boolean(cell?.clip);

/** Changes some fields of a clip. `isUndo`: it takes back a change, and is none to take back itself. */
function review(cell, fields, isUndo = false) {
  if (!canReview(cell)) return say("There is no clip to review here");
  const before = ownOf(cell);
  if (!isUndo) undoable.push({ cell, fields: Object.fromEntries(Object.keys(fields).map((field) => [field, before[field]])) });
  commit({ request_id: cell.requestId, at: stamp(), who: me, ...fields });
  repaint(cell);
  say(worded(cell, fields));
}

function worded(cell, { verdict, stars, note }) {
  if (verdict !== undefined) return verdict ? `${verdict === "keep" ? "Kept" : "Rejected"} ${cell.rowId}` : `No verdict: ${cell.rowId}`;
  if (stars !== undefined) return stars ? `${stars} of 5 stars: ${cell.rowId}` : `No stars: ${cell.rowId}`;
  return note ? `Noted: ${cell.rowId}` : `No note: ${cell.rowId}`;
}

const setVerdict = (cell, verdict) => cell && review(cell, { verdict: ownOf(cell).verdict === verdict ? "" : verdict });
const setStars = (cell, stars) => cell && review(cell, { stars });

function undo() {
  const last = undoable.pop();
  if (!last) return say("Nothing to undo");
  if (last.duel) return undoDuel(last.duel);
  review(last.cell, last.fields, true);
  say(`Undone: ${last.cell.rowId}`);
  return last.cell;
}

// --- where changes go

let outbox = [];
let kept = []; // of a page from a file: every change that is not in the page itself

/** A served page replaces this: its changes go to the ledger. */
let send = () => {
  memory.write(reviewStore, JSON.stringify(kept));
};

function commit(change) {
  takeIn(change);
  outbox.push(change);
  kept.push(change);
  send();
  drawMarks();
}

/** Draws a clip's marks again wherever it is shown. */
function repaint(cell) {
  if (elements.has(cell.n)) paint(cell);
  for (const show of repainters) show(cell);
  drawMarks();
}
const repainters = [];

/** The marks on a clip's tile. */
function paint(cell, element = elements.get(cell.n)) {
  const { verdict, stars, note } = reviewOf(cell);
  element.classList.toggle("keep", verdict === "keep");
  element.classList.toggle("reject", verdict === "reject");
  const rank = duelRank(cell);
  const words = [
    verdict && el("b", { class: verdict }, verdict),
    stars && el("span", { class: "stars", role: "img", "aria-label": `${stars} of 5 stars` }, starsText(stars)),
    rank && el("span", { class: "rank", title: rank.words }, `#${rank.place} of ${rank.of}`),
    note && el("q", { title: note }, note),
    ...othersOf(cell).map((line) => el("small", {}, line)),
  ].filter(Boolean);
  element.querySelector(".said")?.remove();
  if (words.length) element.append(el("p", { class: "said" }, ...words));
}

// --- a file instead of a ledger

function reviewsFile() {
  return JSON.stringify({ version: 1, run: sheet.run, reviews: kept.map((change) => (change.who ? change : { ...change, who: undefined })) }, null, 1);
}

function saveReviews() {
  const link = el("a", { download: "reviews.json", href: URL.createObjectURL(new Blob([reviewsFile()], { type: "application/json" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say("reviews.json: next, dop review import reviews.json");
}

async function loadReviews(file) {
  try {
    const content = JSON.parse(await file.text());
    const items = content.reviews ?? (content.picks ?? []).map((pick) => ({ request_id: pick.request_id ?? pick, verdict: "keep" }));
    let count = 0;
    for (const item of items) {
      const change = { ...item, who: item.who || me, at: item.at ? timeOf(item.at) : stamp() };
      if (!takeIn(change)) continue;
      outbox.push(change);
      kept.push(change);
      count += 1;
    }
    send();
    showAllMarks();
    say(`${count} ${count === 1 ? "review" : "reviews"} loaded from ${file.name}`);
  } catch {
    say(`${file.name} holds no reviews`);
  }
}

/** A time of a loaded file in the page's own spelling. */
const timeOf = (at) => (/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(at) ? at : `${new Date(at).toISOString().slice(0, -1)}000Z`);

function showAllMarks() {
  for (const cell of cells) if (elements.has(cell.n) && said.has(cell.requestId)) paint(cell);
  drawMarks();
}

/** What the page came with, and of a page from a file what this browser kept. */
function recallReviews() {
  for (const change of sheet.reviews) takeIn(change);
  if (isServed) return;
  for (const change of JSON.parse(memory.read(reviewStore) ?? "[]")) if (takeIn(change)) kept.push(change);
}

// --- how far, and what it leads to

const counted = (verdict) => cells.filter((cell) => cell.clip && reviewOf(cell).verdict === verdict);

function drawMarks() {
  const [keep, reject] = [counted("keep"), counted("reject")];
  const all = cells.filter((cell) => cell.clip).length;
  by("progress").textContent = all ? `${keep.length + reject.length} of ${all} judged, ${keep.length} kept, ${reject.length} rejected` : "";
  by("undo").disabled = undoable.length === 0;
  by("compare-open").disabled = compared.length < 2;
  by("compare-count").textContent = compared.length || "";
  if (by("reviews-save")) by("reviews-save").disabled = kept.length === 0;
  drawNext(keep);
  for (const [holder, cell] of [[by("tools"), toolsCell], [by("box"), boxCell]]) {
    if (!cell) continue;
    const { verdict, stars } = ownOf(cell);
    for (const word of ["keep", "reject"]) holder.querySelector(`[data-do="${word}"]`).setAttribute("aria-pressed", verdict === word);
    holder.querySelector('[data-do="compare"]').setAttribute("aria-pressed", compared.includes(cell));
    for (const button of holder.querySelectorAll("[data-stars]")) button.setAttribute("aria-pressed", Number(button.dataset.stars) <= stars);
  }
}

/** "5 kept x dop-preview = $2.87", with the command that buys them. */
function drawNext(keep) {
  const models = Object.entries(sheet.prices);
  by("next").hidden = keep.length === 0 || models.length === 0;
  if (by("next").hidden) return;
  const used = new Set(keep.map((cell) => cell.model));
  if (!by("next-model").value) {
    const dearest = models.sort(([, one], [, other]) => other - one).find(([model]) => !used.has(model)) ?? models[0];
    by("next-model").value = dearest[0];
  }
  const model = by("next-model").value;
  const others = keep.filter((cell) => cell.model !== model);
  const cents = Math.round((others.length * sheet.prices[model]) / 10_000);
  by("next-sum").textContent = `${others.length} kept x ${model} = $${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, "0")}`;
  const runs = sheet.beside.length ? new Set(others.map((cell) => sheet.runs[valueOf(cell, "run")])) : [sheet.run];
  const commands = [...runs].map((run) => `dop derive ${run} --set model=${model}`);
  by("next-command").textContent = [...(isServed ? [] : ["dop review import reviews.json"]), ...commands].join(" && ");
}

async function copyText(words, what) {
  try {
    await navigator.clipboard.writeText(words);
    say(`Copied: ${what}`);
  } catch {
    say(words);
  }
}

// --- notes

let notedCell = null;

function openNote(cell) {
  if (!canReview(cell)) return say("There is no clip to note something of");
  notedCell = cell;
  by("note-title").textContent = `Note on ${cell.rowId}`;
  by("note-text").value = ownOf(cell).note;
  by("note").showModal();
  by("note-text").focus();
}

function saveNote() {
  const note = by("note-text").value.trim();
  if (note !== ownOf(notedCell).note) review(notedCell, { note });
  by("note").close();
}
