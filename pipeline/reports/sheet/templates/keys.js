// Everything by keyboard. Keys typed into a field are the field's own.

const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moveTo(cell) {
  focusable(cell);
  elementOf(cell).querySelector(".shot").focus({ preventScroll: true });
  elementOf(cell).scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** The nearest clip in a direction, as the eye sees it: what lies off the line counts threefold. */
function nearest(from, [right, down]) {
  const middle = (cell) => {
    const box = elementOf(cell).getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const [x0, y0] = middle(from);
  let best = null;
  let least = Infinity;
  const span = Math.max(40, 2 * widest); // more clips than two rows have: to measure all of them would lay all of them out
  const at = order.indexOf(from);
  for (const cell of order.slice(Math.max(0, at - span), at + span + 1)) {
    if (cell === from) continue;
    const [x, y] = middle(cell);
    const along = (x - x0) * right + (y - y0) * down;
    const aside = Math.abs((x - x0) * down) + Math.abs((y - y0) * right);
    if (along > 4 && along + 3 * aside < least && aside <= along * 2) {
      best = cell;
      least = along + 3 * aside;
    }
  }
  return best;
}

function nextTab(step) {
  const [axis, chosen] = Object.entries(tabChoice())[0] ?? [];
  if (!axis) return;
  const values = valuesOf(axis);
  view.tabs[axis] = values[(values.indexOf(chosen) + step + values.length) % values.length];
  view.page = 0;
  redraw();
  say(`${axis} ${view.tabs[axis]}`);
}

/** On from the current clip in the order of the page, or back. */
function stepOrder(by_) {
  const next = current ? order[order.indexOf(current) + by_] : order[0];
  if (next) moveTo(next);
  else say(by_ > 0 ? "This is the last clip" : "This is the first clip");
}

function step(direction) {
  const next = current ? nearest(current, direction) : order[0];
  if (next) moveTo(next);
}

function stepFrame(by_) {
  engage();
  conductor.seek(conductor.time + by_ * FRAME_S);
}

/** After an undo the clip that it changed is the current one. */
function undoAndShow() {
  const cell = undo();
  if (!cell) return;
  if (by("box").open) openBox(cell);
  else if (!document.querySelector("dialog[open]") && order.includes(cell)) moveTo(cell);
}

/** The same keys judge everywhere; `of` says which clip they mean. */
const judging = (of) => ({
  ...Object.fromEntries([1, 2, 3, 4, 5].map((stars) => [stars, () => setStars(of(), stars)])),
  0: () => setStars(of(), 0),
  k: () => setVerdict(of(), "keep"),
  p: () => setVerdict(of(), "keep"),
  x: () => setVerdict(of(), "reject"),
  n: () => openNote(of()),
  d: () => download(of()),
  u: undoAndShow,
  "?": () => by("help").showModal(),
});

const keys = {
  ...judging(() => current),
  " ": togglePlay,
  ",": () => stepFrame(-1),
  ".": () => stepFrame(1),
  j: () => stepOrder(1),
  "shift+j": () => stepOrder(-1),
  ...Object.fromEntries(Object.entries(arrows).map(([key, direction]) => [key, () => step(direction)])),
  Enter: () => openBox(current),
  f: () => openFull(current),
  c: () => toggleCompare(current),
  v: openVersus,
  b: () => openDuel(current),
  i: () => toggleDetails(),
  "[": () => nextTab(-1),
  "]": () => nextTab(1),
  "-": () => resize(1 / 1.15),
  "+": () => resize(1.15),
  "=": () => resize(1.15),
  "/": () => toggleFilters(true),
  Escape: disengage,
};

const boxKeys = {
  ...judging(() => boxCell),
  ArrowLeft: () => stepBox(-1),
  ArrowRight: () => stepBox(1),
  ArrowUp: () => stepBox(-1),
  ArrowDown: () => stepBox(1),
  j: () => stepBox(1),
  "shift+j": () => stepBox(-1),
  " ": toggleBoxPlay,
  ",": () => stepBoxFrame(-1),
  ".": () => stepBoxFrame(1),
  c: () => toggleCompare(boxCell),
  v: openVersus,
  b: () => openDuel(boxCell),
  i: () => toggleDetails(),
  f: () => toggleFull(by("box")),
};

const versusKeys = {
  ...judging(() => paneCell),
  ArrowLeft: () => stepPane(-1),
  ArrowRight: () => stepPane(1),
  j: () => stepPane(1),
  "shift+j": () => stepPane(-1),
  " ": () => versus.toggle(),
  ",": () => versus.seek(versus.time - FRAME_S),
  ".": () => versus.seek(versus.time + FRAME_S),
  w: () => toggleOver("wipe"),
  e: () => toggleOver("difference"),
  f: () => toggleFull(by("versus")),
};

const duelKeys = {
  ArrowLeft: () => decide(0),
  ArrowRight: () => decide(1),
  1: () => decide(0),
  2: () => decide(1),
  " ": () => duelConductor.toggle(),
  s: drawDuel,
  o: showOrder,
  b: () => by("duel").close(),
  u: undo,
  f: () => toggleFull(by("duel")),
  "?": () => by("help").showModal(),
};

const noteKeys = { Enter: saveNote };
const dialogKeys = { box: boxKeys, versus: versusKeys, duel: duelKeys, note: noteKeys };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event;
  const open = [...document.querySelectorAll("dialog[open]")].at(-1);
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const key = event.shiftKey && letter === "j" ? "shift+j" : letter;
  if (target.id === "note-text" ? event.key !== "Enter" || event.shiftKey : isTyping(event)) return;
  if ((event.key === " " || event.key === "Enter") && target.matches("button, summary, input, .skip")) return;
  const action = open ? dialogKeys[open.id]?.[key] : keys[key];
  if (!action) return;
  event.preventDefault();
  action();
}

/** Whether a key belongs to the field it is pressed in. */
function isTyping({ key, target }) {
  if (key === "Escape" && target.id === "filter-text") return false;
  if (target.matches("input[type=range]")) return key.startsWith("Arrow");
  return target.matches("input:not([type=checkbox], [type=file]), select, textarea");
}
