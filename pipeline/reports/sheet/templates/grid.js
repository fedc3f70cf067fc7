// Draws the arrangement. A cell's element is made once (or taken from the page as it came) and moved, never made again.

const elements = new Map();
const MAX_CHIPS = 12;
const FAR_COLUMNS = 3; // so many columns fit on a small screen
let order = [];
let current = null;

const clipCount = (count) => `${count} ${count === 1 ? "clip" : "clips"}`;

function adoptCells() {
  for (const element of document.querySelectorAll("#sheet .cell")) {
    const cell = cells[Number(element.dataset.n)];
    elements.set(cell.n, element);
    prepare(cell, element);
  }
}

function elementOf(cell) {
  if (!elements.has(cell.n)) {
    const element = makeCell(cell);
    prepare(cell, element);
    elements.set(cell.n, element);
  }
  return elements.get(cell.n);
}

/** The same markup as the page's template draws for a cell. */
function makeCell(cell) {
  const element = by("cell").content.firstElementChild.cloneNode(true);
  element.classList.add(cell.state);
  element.dataset.n = cell.n;
  element.querySelector(".name").textContent = cell.rowId;
  element.querySelector(".name").title = cell.rowId;
  element.querySelector(".price").textContent = cell.due ? `${cell.price} ${cell.due}` : cell.price;
  element.prepend(makeShot(cell));
  if (cell.check === "bad" || cell.check === "warn" || cell.check === "unchecked") element.append(makeCheck(cell));
  return element;
}

function makeShot(cell) {
  if (cell.clip) {
    const alt = `${cell.rowId}: ${cell.state}`;
    const inside = cell.poster
      ? el("img", { src: cell.poster, alt, loading: "lazy", decoding: "async" })
      : el("span", { class: "note" }, el("b", {}, cell.rowId), el("i", {}, "no poster"));
    return el("a", { class: "shot", href: cell.clip }, inside);
  }
  const words = el("i", {}, cell.reason || sheet.words[cell.state]);
  const note = el("span", { class: "note" }, ...(cell.state === "skipped" ? [] : [el("b", {}, stateWord(cell.state))]), words);
  return el("div", { class: "shot" }, note);
}

function makeCheck(cell) {
  const word = cell.check === "unchecked" ? "unchecked" : kindsOf(cell)[0].replaceAll("_", " ");
  const more = cell.check === "unchecked" ? 0 : cell.defects.split("; ").length - 1;
  return el("span", { class: `check ${cell.check}`, title: cell.defects }, more ? `${word} +${more}` : word);
}

function prepare(cell, element) {
  const shot = element.querySelector(".shot");
  shot.tabIndex = -1;
  if (!cell.clip && cell.state !== "skipped") shot.setAttribute("role", "button");
  if (said.has(cell.requestId) || duelled.size) paint(cell, element);
  element.classList.toggle("compared", compared.includes(cell));
  element.classList.toggle("current", cell === current);
  watcher.observe(element);
}

function draw() {
  const plan = arranged();
  const isTable = view.x !== null || view.y !== null;
  order = plan.rows.flatMap((row) => row.crossings.flat());
  widest = view.x === null ? Math.max(1, ...plan.rows.map((row) => row.crossings.flat().length)) : plan.columns.length;
  for (const row of plan.rows) {
    const some = row.crossings.flat();
    const telling = captionOf(some);
    for (const cell of some) elementOf(cell).querySelector(".tells").textContent = telling(cell);
  }
  const drawn = order.length === 0 ? emptyNote() : isTable ? table(plan) : flow();
  by("sheet").replaceChildren(el("section", { class: "tab" }, drawn));
  drawPager(plan);
  drawTabs();
  remember();
  fit();
  focusable(order.includes(current) ? current : order[0] ?? null);
  by("shown").textContent = plan.count === cells.length ? clipCount(cells.length) : `${plan.count} of ${clipCount(cells.length)}`;
}

/** Says beside its id what tells a clip from the others of its row, where row and column do not say it. */
function captionOf(some) {
  if (view.x === null && view.y === null) return () => "";
  const chosen = Object.entries(tabChoice()).filter(([, value]) => value !== "*");
  const said = new Set([view.x, view.y, "prompt", "image", ...chosen.map(([axis]) => axis)]);
  const free = sheet.axes.filter((axis) => !said.has(axis.name) && axis.values.length > 1).map((axis) => axis.name);
  const telling = tellingAxes(free, some);
  const names = telling.length || view.x !== null ? telling : free;
  const worded = (name, value) => (/^[\d.]+$/.test(value) ? `${name} ${value}` : value);
  // What the id says already is not said twice.
  return (cell) => names.filter((name) => !cell.rowId.includes(valueOf(cell, name))).map((name) => worded(name, valueOf(cell, name))).filter(Boolean).join(" · ");
}

/** Those axes, in order, that part cells which all axes before them leave together. */
function tellingAxes(names, some) {
  const telling = [];
  const kinds = (axes) => new Set(some.map((cell) => axes.map((axis) => valueOf(cell, axis)).join("\u0000"))).size;
  for (const name of names) if (kinds([view.x, ...telling, name]) > kinds([view.x, ...telling])) telling.push(name);
  return telling;
}

function flow() {
  return el("div", { class: "flow" }, ...order.map(elementOf));
}

function emptyNote() {
  if (!cells.length) return el("p", { class: "nothing" }, "This run has no clips yet.");
  const elsewhere = cells.filter(isWanted).length;
  const more = elsewhere ? ` ${elsewhere} in other tabs.` : "";
  return el("p", { class: "nothing" }, `No clip here passes these filters.${more}`);
}

/** One table; or a table for each group of clips that flow: laying one out again leaves the others alone. */
function table(plan) {
  if (view.x !== null) return el("table", { class: "grid" }, columnHeads(plan), tableBody(plan.rows));
  const groups = plan.rows.map((row) => el("div", { class: "group" }, el("table", { class: "grid flowing" }, tableBody([row]))));
  return el("div", {}, ...groups);
}

function columnHeads({ columns }) {
  const heads = columns.map((column) => headOf(view.x, column, "col"));
  return el("thead", {}, el("tr", {}, el("td"), ...heads));
}

function tableBody(rows) {
  const body = el("tbody");
  for (const row of rows) {
    const starts = new Set(row.crossings.flat().map((cell) => cell.start).filter(Boolean));
    const head = headOf(view.y, row.name, "row");
    if (starts.size === 1) head.append(startFrame([...starts][0]));
    if (view.y !== null) head.append(rowCount(row));
    body.append(el("tr", {}, head, ...row.crossings.map((some) => el("td", {}, ...some.map(elementOf)))));
  }
  return body;
}

function headOf(axis, value, scope) {
  return el("th", { scope }, ...(axis === null ? [] : [el("small", {}, axis), ...breakable(value || "–")]));
}

/** How many clips a row has; where the first of them lies far to the right, a button leads there. */
function rowCount(row) {
  const some = row.crossings.flat();
  const words = `${some.length} ${some.length === 1 ? "clip" : "clips"}`;
  const first = row.crossings.findIndex((crossing) => crossing.length);
  if (first < FAR_COLUMNS || !some.length) return el("small", { class: "count" }, words);
  return el("button", { type: "button", class: "count", "data-first": some[0].n }, `${words} →`);
}

function startFrame(link) {
  return el("img", { class: "start", src: link, alt: "Start frame", title: "Start frame", loading: "lazy" });
}

function drawTabs() {
  const choice = tabChoice();
  const sets = Object.entries(choice).map(([axis, chosen]) => {
    const values = valuesOf(axis);
    const counts = filtersSet() ? countsOf(axis) : null;
    const named = [...values, "*"].map((value) => [value, tabName(value, counts)]);
    if (values.length > MAX_CHIPS) return tabSelect(axis, named, chosen);
    const chips = named.map(([value, name]) => tabChip(axis, value, name, value === chosen));
    return el("fieldset", {}, el("legend", {}, axis), el("div", { class: "chips" }, ...chips));
  });
  const focused = document.activeElement?.closest("#tabs") ? document.activeElement.dataset.axis : null;
  by("tabs").replaceChildren(...sets);
  by("tabs").hidden = sets.length === 0;
  if (focused) by("tabs").querySelector(`input[data-axis="${CSS.escape(focused)}"]:checked, select[data-axis="${CSS.escape(focused)}"]`)?.focus();
}

function tabName(value, counts) {
  if (value === "*") return "all";
  return (value || "–") + (counts ? ` (${counts.get(value) ?? 0})` : "");
}

function tabChip(axis, value, name, isChosen) {
  const input = el("input", { type: "radio", name: `tab-${axis}`, value, "data-axis": axis });
  input.checked = isChosen;
  return el("label", { class: "chip" }, input, el("span", {}, name));
}

function tabSelect(axis, named, chosen) {
  const select = el("select", { "data-axis": axis }, ...named.map(([value, name]) => el("option", { value }, name)));
  select.value = chosen;
  return el("label", {}, axis, select);
}

function drawPager({ pages, count }) {
  by("pager").hidden = pages < 2;
  const turn = (words, page) => {
    const button = el("button", { type: "button", "data-page": page }, words);
    button.disabled = page < 0 || page >= pages;
    return button;
  };
  const where = el("span", {}, `page ${view.page + 1} of ${pages}, ${clipCount(count)}`);
  by("pager").replaceChildren(turn("Before", view.page - 1), where, turn("Next", view.page + 1));
}

/** Exactly one clip is in the tab order; the arrow keys move between them. */
function focusable(cell) {
  if (current && elements.has(current.n)) {
    elements.get(current.n).querySelector(".shot").tabIndex = -1;
    elements.get(current.n).classList.remove("current");
  }
  current = cell;
  if (!cell) return;
  elementOf(cell).querySelector(".shot").tabIndex = 0;
  elementOf(cell).classList.add("current");
}

let isSizeChosen = false;
let widest = 1; // clips side by side in the longest row

/** Clips as large as the longest row allows, until the user moves the slider. */
function fit() {
  const page = document.documentElement.clientWidth; // without the scroll bar, which 100vw counts in
  document.documentElement.style.setProperty("--page", `${page}px`);
  if (isSizeChosen) return;
  const isSmall = innerWidth <= 700;
  const room = page - (isSmall ? 96 : 160);
  const isFlow = view.x === null && view.y === null;
  const wide = isFlow ? (isSmall ? room / 2 - 8 : 220) : room / widest - 8;
  setSize(Math.max(isSmall ? room / 2 - 8 : 128, Math.min(wide, 340)));
}

function setSize(width) {
  document.documentElement.style.setProperty("--w", `${Math.floor(width)}px`);
  by("size").value = width;
}

/** The arrangement in the address, so that a bookmark opens it again. */
function remember() {
  const parts = new URLSearchParams({ x: view.x ?? "", y: view.y ?? "", ...prefixed(tabChoice()) });
  if (view.sort) parts.set("sort", view.sort);
  try {
    history.replaceState(null, "", `#${parts}`);
  } catch {
    // a page in a frame without an address of its own
  }
}

const prefixed = (choice) => Object.fromEntries(Object.entries(choice).map(([axis, value]) => [`tab.${axis}`, value]));

function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  for (const side of ["x", "y"]) {
    const name = parts.get(side);
    if (name === "" || (name && isAxis(name))) view[side] = name || null;
  }
  for (const [name, value] of parts) if (name.startsWith("tab.")) view.tabs[name.slice(4)] = value;
  if (parts.get("sort") in SORTS) view.sort = parts.get("sort");
}
