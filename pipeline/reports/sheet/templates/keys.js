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
  for (const cell of order) {
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
  const values = sheet.axes[axisNumber.get(axis)].values;
  view.tabs[axis] = values[(values.indexOf(chosen) + step + values.length) % values.length];
  view.page = 0;
  redraw();
  say(`${axis} ${view.tabs[axis]}`);
}

const keys = {
  " ": togglePlay,
  ",": () => stepFrame(-1),
  ".": () => stepFrame(1),
  p: () => togglePick(current),
  c: () => toggleCompare(current),
  f: openVersus,
  "[": () => nextTab(-1),
  "]": () => nextTab(1),
  "-": () => resize(1 / 1.15),
  "+": () => resize(1.15),
  "=": () => resize(1.15),
  "/": () => toggleFilters(true),
  "?": () => by("help").showModal(),
  Escape: disengage,
};

function stepFrame(by_) {
  engage();
  conductor.seek(conductor.time + by_ * FRAME_S);
}

const boxKeys = {
  ArrowLeft: () => stepBox(-1),
  ArrowRight: () => stepBox(1),
  p: () => togglePick(boxCell),
  c: () => toggleCompare(boxCell),
};

const versusKeys = {
  " ": () => versus.toggle(),
  ",": () => versus.seek(versus.time - FRAME_S),
  ".": () => versus.seek(versus.time + FRAME_S),
  f: toggleFull,
  ...Object.fromEntries([1, 2, 3, 4].map((number) => [number, () => togglePick(compared[number - 1])])),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event;
  const isField = target.matches("input:not([type=checkbox]), select, textarea, video");
  if (isField && !(event.key === "Escape" && target.id === "filter-text")) return;
  const isPress = event.key === " " && target.matches("button, summary, input");
  const open = document.querySelector("dialog[open]");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action = null;
  if (open) action = { box: boxKeys, versus: versusKeys }[open.id]?.[key];
  else if (key in arrows && target.closest("#sheet")) action = () => step(arrows[key]);
  else if (key === "Enter" && target.matches(".shot[role=button]")) action = () => openBox(current);
  else action = keys[key];
  if (!action || isPress) return;
  event.preventDefault();
  action();
}

function step(direction) {
  const next = current && nearest(current, direction);
  if (next) moveTo(next);
}
