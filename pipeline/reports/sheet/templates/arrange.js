// Which cells are shown, and where: columns, rows, tabs, filters and pages. Touches no element.

const view = {
  x: sheet.x,
  y: sheet.y,
  tabs: {},
  page: 0,
  filter: { status: new Set(), model: "", motion: "", tag: "", price: "", text: "", verdict: new Set(), stars: 0, check: new Set(), defect: "" },
  sort: "",
};

/** What every run can be grouped and sorted by, beside its own axes: name -> [value of a cell, order of the values]. */
const extraAxes = new Map(
  Object.entries({
    row: [rowOf],
    tag: [(cell) => cell.tags[0] ?? ""],
    motion: [(cell) => factOf(cell, "motion")],
    model: [(cell) => cell.model],
    seed: [(cell) => factOf(cell, "seed")],
    check: [(cell) => cell.check, GRADES],
    stars: [(cell) => starsText(reviewOf(cell).stars), [5, 4, 3, 2, 1, 0].map(starsText)],
    verdict: [(cell) => reviewOf(cell).verdict, ["keep", "", "reject"]],
  }).filter(([name]) => !axisNumber.has(name)),
);
const isAxis = (name) => axisNumber.has(name) || extraAxes.has(name);

function valueOf(cell, axis) {
  if (axis === null) return "";
  const own = axisNumber.get(axis);
  return own === undefined ? extraAxes.get(axis)[0](cell) : cell.place[own];
}

/** The values of an axis, in their order. */
function valuesOf(axis) {
  if (axisNumber.has(axis)) return sheet.axes[axisNumber.get(axis)].values;
  const [value, order] = extraAxes.get(axis);
  return order ?? [...new Set(cells.map(value))];
}

const SORTS = {
  row: rowOf,
  tag: (cell) => cell.tags[0] ?? "",
  motion: (cell) => factOf(cell, "motion"),
  model: (cell) => cell.model,
  seed: (cell) => Number(factOf(cell, "seed")),
  check: (cell) => GRADES.indexOf(cell.check),
  stars: (cell) => -reviewOf(cell).stars,
  duels: (cell) => duelRank(cell)?.place ?? Infinity,
};

/** The cells in the chosen order; those that are alike in it stay as they are. */
function sorted(some) {
  const key = SORTS[view.sort];
  if (!key) return some;
  const keyed = some.map((cell) => [key(cell), cell]);
  const order = (one, other) =>
    typeof one === "number" ? (one === other ? 0 : one - other) : one.localeCompare(other, undefined, { numeric: true });
  return keyed.sort(([one], [other]) => order(one, other)).map(([, cell]) => cell);
}

/** The axes without which several cells would share a crossing; those the manifest asked for come first. */
function tabAxes() {
  const isFree = (name) => name !== view.x && name !== view.y;
  const tabs = sheet.tabs.filter(isFree);
  if (view.x === null) return tabs;
  for (const { name, values } of sheet.axes) {
    if (!isFree(name) || tabs.includes(name) || values.length < 2) continue;
    const axes = [view.x, view.y, ...tabs];
    const seen = new Map();
    const varies = cells.some((cell) => {
      const slot = axes.map((axis) => valueOf(cell, axis)).join("\u0000");
      const value = valueOf(cell, name);
      if (!seen.has(slot)) seen.set(slot, value);
      return seen.get(slot) !== value;
    });
    if (varies) tabs.push(name);
  }
  return tabs;
}

/** Each tab axis with its chosen value; "*", all values together, where a few clips may share a crossing. */
function tabChoice() {
  const choice = {};
  for (const name of tabAxes()) {
    const values = valuesOf(name);
    const isChosen = view.tabs[name] === "*" || values.includes(view.tabs[name]);
    if (isChosen) choice[name] = view.tabs[name];
    else choice[name] = sheet.tabs.includes(name) || crowd(choice) > sheet.mostStacked ? values[0] : "*";
  }
  return choice;
}

/** The most cells that share a crossing under a choice of tabs. */
function crowd(choice) {
  const counts = new Map();
  for (const cell of cells) {
    if (!Object.entries(choice).every(([axis, value]) => value === "*" || valueOf(cell, axis) === value)) continue;
    const crossing = `${valueOf(cell, view.x)}\u0000${valueOf(cell, view.y)}`;
    counts.set(crossing, (counts.get(crossing) ?? 0) + 1);
  }
  return Math.max(0, ...counts.values());
}

function isWanted(cell) {
  const { status, model, tag, price, text: words, verdict, stars } = view.filter;
  if (status.size && !status.has(cell.state)) return false;
  if (model && cell.model !== model) return false;
  if (view.filter.motion && factOf(cell, "motion") !== view.filter.motion) return false;
  if (tag && !cell.tags.includes(tag)) return false;
  if (price && !(cell.price && dollars(cell.price) <= dollars(price))) return false;
  if (view.filter.check.size && !view.filter.check.has(cell.check)) return false;
  if (view.filter.defect && !kindsOf(cell).includes(view.filter.defect)) return false;
  if (verdict.size && !(cell.clip && verdict.has(reviewOf(cell).verdict || "none"))) return false;
  if (stars && reviewOf(cell).stars < stars) return false;
  return !words || searchText(cell).includes(words);
}

function searchText(cell) {
  cell.search ??= [cell.rowId, cell.reason, cell.check, cell.defects, cell.state, ...cell.tags, ...cell.facts.map(text)].join("\n").toLowerCase();
  return cell.search;
}

const filtersSet = () => {
  const { status, model, motion, tag, price, text: words, verdict, stars, check, defect } = view.filter;
  return [status.size > 0, model, motion, tag, price, words, verdict.size > 0, stars, check.size > 0, defect].filter(Boolean).length;
};

/** The cells of the chosen tabs that pass the filters; `but` names a tab axis to be left out of the choice. */
function wantedCells(but = null) {
  const choice = Object.entries(tabChoice()).filter(([axis, value]) => value !== "*" && axis !== but);
  return sorted(cells.filter((cell) => choice.every(([axis, value]) => valueOf(cell, axis) === value) && isWanted(cell)));
}

/** How many cells each value of a tab axis would show. */
function countsOf(axis) {
  const counts = new Map();
  for (const cell of wantedCells(axis)) counts.set(valueOf(cell, axis), (counts.get(valueOf(cell, axis)) ?? 0) + 1);
  return counts;
}

/** One page of them as rows of crossings: {columns, rows: [{name, crossings: [[cell]]}], pages, count}. */
function arranged() {
  const wanted = wantedCells();
  const columns = view.x === null ? [""] : inOrder(view.x, wanted);
  const rows = new Map(view.y === null ? [["", []]] : inOrder(view.y, wanted).map((name) => [name, []]));
  for (const cell of wanted) rows.get(valueOf(cell, view.y)).push(cell);
  const pages = paged([...rows]);
  view.page = Math.min(view.page, pages.length - 1);
  return {
    columns,
    count: wanted.length,
    pages: pages.length,
    rows: pages[view.page].map(([name, row]) => {
      const at = Map.groupBy(row, (cell) => valueOf(cell, view.x));
      return { name, crossings: columns.map((column) => at.get(column) ?? []) };
    }),
  };
}

function inOrder(axis, wanted) {
  const present = new Set(wanted.map((cell) => valueOf(cell, axis)));
  return valuesOf(axis).filter((value) => present.has(value));
}

/** Rows cut into pages of at most so many cells; a row longer than a page is cut too. */
function paged(rows) {
  const pages = [[]];
  let room = sheet.pageCells;
  for (const [name, row] of rows) {
    for (let at = 0; at === 0 || at < row.length; at += sheet.pageCells) {
      const part = row.slice(at, at + sheet.pageCells);
      if (part.length > room && pages.at(-1).length) {
        pages.push([]);
        room = sheet.pageCells;
      }
      pages.at(-1).push([name, part]);
      room -= part.length;
    }
  }
  return pages;
}
