// One clip enlarged with its whole request, and two to four side by side.

let boxCell = null;
let toolsCell = null;
let paneVideos = [];

const versus = makeConductor((time, length, isPlaying) => {
  by("versus-scrub").max = length.toFixed(2);
  by("versus-scrub").value = time;
  const button = by("versus").querySelector('[data-do="play"]');
  button.setAttribute("aria-pressed", isPlaying);
  button.querySelector("span").textContent = isPlaying ? "Pause" : "Play";
});

function openBox(cell) {
  if (!cell || cell.state === "skipped") return;
  endHover();
  if (conductor.isPlaying) conductor.pause();
  boxCell = cell;
  by("box-title").textContent = cell.rowId;
  by("box-show").replaceChildren(large(cell), ...frames(cell));
  by("box-facts").replaceChildren(...historyLines(cell), facts(cell));
  for (const button of by("box").querySelectorAll('[data-do="pick"], [data-do="compare"]')) button.disabled = !cell.clip;
  by("box").querySelector('[data-do="previous"]').disabled = order.indexOf(cell) <= 0;
  by("box").querySelector('[data-do="next"]').disabled = order.indexOf(cell) >= order.length - 1;
  drawMarks();
  if (!by("box").open) by("box").showModal();
  by("box-show").querySelector("video")?.play().catch(() => {});
}

function large(cell) {
  if (!cell.clip) {
    const shot = makeShot(cell);
    const holder = el("div", { class: `cell ${cell.state}` }, shot);
    holder.style.width = "100%";
    return holder;
  }
  const video = el("video", { controls: "", loop: "", playsinline: "", src: cell.clip, "aria-label": cell.rowId });
  if (cell.poster) video.poster = cell.poster;
  video.muted = true;
  return video;
}

function frames(cell) {
  if (!cell.start) return [];
  return [el("div", { class: "frames" }, el("div", {}, el("img", { src: cell.start, alt: "Start frame" }), "Start frame"))];
}

function historyLines(cell) {
  const lines = [];
  if (!cell.clip) lines.push(`${sheet.words[cell.state]}${cell.reason ? `: ${cell.reason}` : ""}`);
  lines.push(...cell.history.map(text));
  return lines.map((line) => el("p", { class: "history" }, line));
}

function facts(cell) {
  const list = el("dl");
  for (let at = 0; at < cell.facts.length; at += 2) {
    const value = text(cell.facts[at + 1]);
    const isLink = /^https?:\/\/[^\s]+$/.test(value);
    const shown = isLink ? el("a", { href: value, rel: "noreferrer noopener", target: "_blank" }, value) : value;
    list.append(el("div", {}, el("dt", {}, text(cell.facts[at])), el("dd", {}, shown)));
  }
  return list;
}

function stepBox(by_) {
  const next = order[order.indexOf(boxCell) + by_];
  if (next) openBox(next);
}

function closeBox() {
  for (const video of by("box-show").querySelectorAll("video")) unload(video);
  const cell = boxCell;
  boxCell = null;
  if (cell) moveTo(cell);
}

function openVersus() {
  if (compared.length < 2) return say("Mark two to four clips with C first");
  endHover();
  if (conductor.isPlaying) conductor.pause();
  const panes = compared.map((cell) => {
    const video = makeVideo(cell);
    versus.add(video);
    paneVideos.push(video);
    const said = el("p", {}, el("b", {}, cell.rowId), ` ${differences(cell)}`);
    return el("div", { class: "pane" }, video, el("div", { class: "under" }, said, paneButton(cell)));
  });
  by("panes").replaceChildren(...panes);
  drawMarks();
  by("versus").showModal();
  versus.seek(0);
  versus.play();
}

function paneButton(cell) {
  const button = by("box").querySelector('[data-do="pick"]').cloneNode(true);
  const place = compared.indexOf(cell);
  button.dataset.pane = place;
  button.title = `Pick (${place + 1})`;
  return button;
}

/** The values by which a compared clip differs from the others. */
function differences(cell) {
  const varies = ({ name }) => new Set(compared.map((other) => valueOf(other, name))).size > 1;
  return sheet.axes.filter(varies).map(({ name }) => `${name} ${valueOf(cell, name) || "–"}`).join(", ");
}

function closeVersus() {
  versus.pause();
  for (const video of paneVideos) {
    versus.remove(video);
    unload(video);
  }
  paneVideos = [];
  by("panes").replaceChildren();
  if (document.fullscreenElement) document.exitFullscreen();
}

function clearCompared() {
  for (const cell of compared.splice(0)) elementOf(cell).classList.remove("compared");
  drawMarks();
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else by("versus").requestFullscreen().catch(() => say("This browser allows no full screen here"));
}

const actions = {
  pick: (cell) => togglePick(cell),
  compare: (cell) => toggleCompare(cell),
  previous: () => stepBox(-1),
  next: () => stepBox(1),
  play: () => versus.toggle(),
  full: toggleFull,
  clear: () => {
    by("versus").close();
    clearCompared();
  },
};

function onDialogClick(event) {
  const dialog = event.currentTarget;
  const button = event.target.closest("button[data-do]");
  if (event.target === dialog || button?.dataset.do === "close") dialog.close();
  else if (button) actions[button.dataset.do](compared[button.dataset.pane] ?? boxCell);
}
