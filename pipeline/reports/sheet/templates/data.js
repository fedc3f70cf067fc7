"use strict";
// The run's cells, read once from the page's own JSON block. Texts are numbers into one pool.

const sheet = JSON.parse(document.getElementById("data").textContent);
const { isServed } = sheet;
const by = (id) => document.getElementById(id);
const text = (number) => sheet.strings[number];
const axisNumber = new Map(sheet.axes.map((axis, number) => [axis.name, number]));

const cells = sheet.cells.map(
  ([row, state, reason, price, model, tags, place, links, facts, history, request, attempt, due, check, defects], n) => ({
    n,
    rowId: text(row),
    state: text(state),
    reason: text(reason),
    price: text(price),
    model: text(model),
    tags: tags.map(text),
    place: place.map(text),
    clip: text(links[0]),
    poster: text(links[1]),
    start: text(links[2]),
    facts,
    history,
    requestId: text(request),
    attempt,
    due: text(due),
    check: text(check),
    defects: text(defects),
  }),
);

const byRequest = new Map(cells.filter((cell) => cell.requestId).map((cell) => [cell.requestId, cell]));
/** A clip's row; beside another run's clips, a row that `dop derive` made is one with the row that it came from. */
const rowOf = (cell) => cell.rowId.split(sheet.beside.length ? /[@+]/ : "@", 1)[0];
/** Where a clip lies below the outputs folder. */
const fileOf = (cell) => decodeURIComponent(new URL(cell.clip, `http://outputs/${encodeURIComponent(sheet.run)}/`).pathname.slice(1));
/** One of the lines that the details list; "" where there is none. */
function factOf(cell, name) {
  for (let at = 0; at < cell.facts.length; at += 2) if (text(cell.facts[at]) === name) return text(cell.facts[at + 1]);
  return "";
}
/** The worst come first when clips are sorted by their check. */
const GRADES = ["bad", "warn", "unchecked", "ok", ""];
const kindsOf = (cell) => cell.defects.split("; ").map((defect) => defect.split(" ")[0]);
const dollars = (price) => Number(price.slice(1) || 0);
const starsText = (stars) => "★".repeat(stars || 0);
const stateWord = (state) => state.replaceAll("_", " ");

/** A new element; text children become text, never markup. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A name that breaks at its own joints, where it has to: "sq01_" and "sh01", never "sq01_sh0" and "1". */
function breakable(name) {
  const parts = name.split(/(?<=[_\-@./ ])/);
  return parts.flatMap((part, at) => (at ? [el("wbr"), part] : [part]));
}

/** Browser storage; a page opened from a file may be denied it, and then nothing is remembered. */
const memory = {
  read(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  write(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, value);
    } catch {
      // nothing to do: the page works without
    }
  },
};

memory.names = (start) => {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(start));
  } catch {
    return [];
  }
};

let silence = 0;
/** Says one thing to everybody: seen for three seconds, and read by screen readers. */
function say(message) {
  by("live").textContent = message;
  clearTimeout(silence);
  silence = setTimeout(() => (by("live").textContent = ""), 3000);
}
