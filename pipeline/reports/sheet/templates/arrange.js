// Which cells are shown, and where: columns, rows, tabs, filters and pages. Touches no element.

const view = {
  x: sheet.x,
  y: sheet.y,
  tabs: {},
  page: 0,
  filter: { status: new Set(), model: "", tag: "", price: "", text: "", picks: false, check: new Set(), defect: "" },
  sort: "",
};

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
    const values = sheet.axes[axisNumber.get(name)].values;
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
  const { status, model, tag, price, text: words, picks } = view.filter;
  if (status.size && !status.has(cell.state)) return false;
  if (model && cell.model !== model) return false;
  if (tag && !cell.tags.includes(tag)) return false;
  if (price && !(cell.price && dollars(cell.price) <= dollars(price))) return false;
  if (view.filter.check.size && !view.filter.check.has(cell.check)) return false;
  if (view.filter.defect && !kindsOf(cell).includes(view.filter.defect)) return false;
  if (picks && !picked.has(pickKey(cell))) return false;
  return !words || searchText(cell).includes(words);
}

function searchText(cell) {
  cell.search ??= [cell.rowId, cell.reason, cell.check, cell.defects, cell.state, ...cell.tags, ...cell.facts.map(text)].join("\n").toLowerCase();
  return cell.search;
}

const filtersSet = () => {
  const { status, model, tag, price, text: words, picks, check, defect } = view.filter;
  return [status.size > 0, model, tag, price, words, picks, check.size > 0, defect].filter(Boolean).length;
};

/** The cells of the chosen tabs that pass the filters; `but` names a tab axis to be left out of the choice. */
function wantedCells(but = null) {
  const choice = Object.entries(tabChoice()).filter(([axis, value]) => value !== "*" && axis !== but);
  const wanted = cells.filter((cell) => choice.every(([axis, value]) => valueOf(cell, axis) === value) && isWanted(cell));
  return view.sort === "check" ? wanted.sort((one, other) => GRADES.indexOf(one.check) - GRADES.indexOf(other.check)) : wanted;
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
    rows: pages[view.page].map(([name, row]) => ({
      name,
      crossings: columns.map((column) => row.filter((cell) => valueOf(cell, view.x) === column)),
    })),
  };
}

function inOrder(axis, wanted) {
  const present = new Set(wanted.map((cell) => valueOf(cell, axis)));
  return sheet.axes[axisNumber.get(axis)].values.filter((value) => present.has(value));
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
