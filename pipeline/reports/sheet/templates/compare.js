// Two to four clips side by side in step, or two over each other with a wipe.

const compared = [];
const MAX_COMPARED = 4;
let panes = []; // the cells that are side by side
let paneVideos = [];
let paneCell = null;

const versus = makeConductor((time, length, isPlaying) => {
  by("versus-scrub").max = length.toFixed(2);
  by("versus-scrub").value = time;
  const button = by("versus").querySelector('[data-do="play"]');
  button.setAttribute("aria-pressed", isPlaying);
  button.querySelector("span").textContent = isPlaying ? "Pause" : "Play";
});

function toggleCompare(cell) {
  if (!cell?.clip) return;
  const at = compared.indexOf(cell);
  if (at >= 0) compared.splice(at, 1);
  else if (compared.length < MAX_COMPARED) compared.push(cell);
  else return say("Four clips are compared at most");
  elementOf(cell).classList.toggle("compared", compared.includes(cell));
  say(`${compared.length} marked for comparing`);
  drawMarks();
}

/** The marked clips; where none are marked, the current one with the next takes of its shot. */
function openVersus() {
  const from = boxCell ?? current;
  let chosen = [...compared];
  if (chosen.length < 2 && from?.clip) {
    const shot = takesOf(from);
    const at = shot.indexOf(from);
    chosen = [...shot.slice(at), ...shot.slice(0, at)].slice(0, MAX_COMPARED);
  }
  if (chosen.length < 2) return say("Mark two to four clips with C first");
  quiet();
  panes = chosen;
  by("versus").classList.remove("wiping", "differing");
  by("panes").replaceChildren(...panes.map(pane));
  for (const way of ["wipe", "difference"]) by("versus").querySelector(`[data-do="${way}"]`).disabled = panes.length !== 2;
  setWipe(50);
  choosePane(panes.includes(from) ? from : panes[0]);
  openDialog("versus");
  versus.seek(0);
  versus.play();
}

function pane(cell, at) {
  const video = makeVideo(cell);
  versus.add(video);
  paneVideos.push(video);
  const words = el("p", {}, el("b", {}, cell.rowId), ` ${differences(cell)}`);
  const below = el("div", { class: "under" }, words, el("span", { class: "said" }));
  return el("div", { class: "pane", "data-pane": at, tabindex: "-1" }, video, el("span", { class: "number" }, at + 1), below);
}

/** Model and price, and the other values by which a compared clip differs. */
function differences(cell) {
  const varies = ({ name }) => name !== "model" && new Set(panes.map((other) => valueOf(other, name))).size > 1;
  const more = sheet.axes.filter(varies).map(({ name }) => `${name} ${valueOf(cell, name) || "–"}`);
  return [cell.model, cell.price, ...more].filter(Boolean).join(", ");
}

function choosePane(cell) {
  paneCell = cell;
  for (const element of by("panes").children) {
    const isIt = panes[element.dataset.pane] === cell;
    element.classList.toggle("current", isIt);
    if (isIt) element.setAttribute("aria-current", "true");
    else element.removeAttribute("aria-current");
    drawPane(panes[element.dataset.pane]);
  }
}

function drawPane(cell) {
  const element = by("panes").children[panes.indexOf(cell)];
  if (!element) return;
  const { verdict, stars, note } = reviewOf(cell);
  element.classList.toggle("keep", verdict === "keep");
  element.classList.toggle("reject", verdict === "reject");
  element.querySelector(".said").textContent = [verdict, starsText(stars), note].filter(Boolean).join(" ");
}
repainters.push(drawPane);

function stepPane(by_) {
  choosePane(panes[(panes.indexOf(paneCell) + by_ + panes.length) % panes.length]);
  say(`Take ${panes.indexOf(paneCell) + 1}: ${paneCell.rowId}`);
}

/** Where the first of two clips ends and the second begins, in per cent of the width. */
function setWipe(at) {
  by("wipe").value = at;
  by("panes").style.setProperty("--wipe", `${at}%`);
}

/** Two clips over each other: with a wipe between them, or as what differs, black where they are alike. */
function toggleOver(way) {
  if (panes.length !== 2) return say("That needs two clips");
  const name = { wipe: "wiping", difference: "differing" }[way];
  const isOn = !by("versus").classList.contains(name);
  by("versus").classList.remove("wiping", "differing");
  by("versus").classList.toggle(name, isOn);
  for (const one of ["wipe", "difference"])
    by("versus").querySelector(`[data-do="${one}"]`).setAttribute("aria-pressed", isOn && one === way);
  if (isOn && way === "wipe") by("wipe").focus();
}

function closeVersus() {
  versus.pause();
  for (const video of paneVideos) {
    versus.remove(video);
    unload(video);
  }
  paneVideos = [];
  by("panes").replaceChildren();
  const cell = paneCell;
  paneCell = null;
  panes = [];
  if (cell && !by("box").open && order.includes(cell)) moveTo(cell);
  leaveFullScreen();
}

function clearCompared() {
  for (const cell of compared.splice(0)) elementOf(cell).classList.remove("compared");
  drawMarks();
}
