// One clip large, to judge clip after clip: its start frame beside it, the takes of its shot below, the request behind "details".

let boxCell = null;
let toolsCell = null;

/** Opens a dialog with the focus on its title: no button is pressed by the space that plays. */
function openDialog(name) {
  by(name).showModal();
  by(name).querySelector("h2").focus();
}

/** Nothing plays behind a dialog. */
function quiet() {
  endHover();
  if (conductor.isPlaying) conductor.pause();
  boxVideo()?.pause();
}

function openBox(cell) {
  if (!cell || cell.state === "skipped") return;
  quiet();
  boxCell = cell;
  for (const video of by("box-show").querySelectorAll("video")) unload(video);
  by("box-title").textContent = cell.rowId;
  by("box-where").textContent = `${order.indexOf(cell) + 1} of ${order.length}`;
  by("box-show").replaceChildren(large(cell), ...frames(cell));
  by("box-takes").replaceChildren(...takes(cell));
  by("box-facts").replaceChildren(...historyLines(cell), facts(cell));
  for (const button of by("box").querySelectorAll(".judge button")) button.disabled = !cell.clip;
  by("box").querySelector('[data-do="previous"]').disabled = order.indexOf(cell) <= 0;
  by("box").querySelector('[data-do="next"]').disabled = order.indexOf(cell) >= order.length - 1;
  drawBoxReview(cell);
  drawMarks();
  if (!by("box").open) openDialog("box");
  by("box-takes").querySelector(".current")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  boxVideo()?.play().catch(() => {});
}

const boxVideo = () => by("box-show").querySelector("video");

function large(cell) {
  if (!cell.clip) {
    const holder = el("div", { class: `cell ${cell.state}` }, makeShot(cell));
    holder.style.width = "100%";
    return holder;
  }
  const video = el("video", { controls: "", loop: "", playsinline: "", src: cell.clip, "aria-label": cell.rowId });
  if (cell.poster) video.poster = cell.poster;
  video.muted = true;
  video.addEventListener("error", () => cell === boxCell && missing(video, cell), { once: true });
  return video;
}

/** A clip that is not there any more: its poster stays, with words. */
function missing(video, cell) {
  const inside = [el("i", {}, "the clip is not beside this page")];
  const picture = cell.poster ? [el("img", { src: cell.poster, alt: cell.rowId })] : [];
  video.replaceWith(el("div", { class: "shot" }, ...picture, el("span", { class: "note over" }, ...inside)));
}

function frames(cell) {
  if (!cell.start) return [];
  return [el("figure", { class: "frames" }, el("img", { src: cell.start, alt: "Start frame" }), el("figcaption", {}, "Start frame"))];
}

/** The takes of the same shot, small, with what was said of them. */
function takes(cell) {
  const shot = shotOf(cell).filter((other) => other.state !== "skipped");
  if (shot.length < 2) return [];
  return shot.map((other) => {
    const picture = other.poster ? el("img", { src: other.poster, alt: "", loading: "lazy" }) : el("span", { class: "note" }, stateWord(other.state));
    const { verdict, stars } = reviewOf(other);
    const words = [verdict, starsText(stars)].filter(Boolean).join(" ");
    const button = el("button", { type: "button", class: `take ${verdict}`, "data-take": other.n, tabindex: other === cell ? "0" : "-1" }, picture, el("span", {}, other.rowId), el("small", {}, words));
    if (other === cell) {
      button.classList.add("current");
      button.setAttribute("aria-current", "true");
    }
    return button;
  });
}

function drawBoxReview(cell) {
  if (cell !== boxCell && !shotOf(cell).includes(boxCell)) return;
  const { verdict, stars, note } = reviewOf(boxCell);
  const rank = duelRank(boxCell);
  const defects = boxCell.check === "bad" || boxCell.check === "warn" ? [el("span", { class: `check ${boxCell.check}` }, boxCell.defects)] : [];
  const words = [
    verdict && el("b", { class: verdict }, verdict),
    stars && el("span", { class: "stars", role: "img", "aria-label": `${stars} of 5 stars` }, starsText(stars)),
    rank && el("span", {}, `#${rank.place} of ${rank.of}: ${rank.words}`),
    note && el("q", {}, note),
    ...othersOf(boxCell).map((line) => el("small", {}, line)),
  ].filter(Boolean);
  by("box-said").replaceChildren(...defects, ...words);
  const own = by("box-takes").querySelector(`[data-take="${cell.n}"]`);
  if (!own) return;
  const now = reviewOf(cell);
  own.classList.toggle("keep", now.verdict === "keep");
  own.classList.toggle("reject", now.verdict === "reject");
  own.querySelector("small").textContent = [now.verdict, starsText(now.stars)].filter(Boolean).join(" ");
}
repainters.push((cell) => boxCell && drawBoxReview(cell));

function historyLines(cell) {
  const lines = [];
  if (!cell.clip) lines.push(`${sheet.words[cell.state]}${cell.reason ? `: ${cell.reason}` : ""}`);
  lines.push(...cell.history.map(text));
  return lines.map((line) => el("p", { class: "history" }, line));
}

/** What is worth copying of a request. */
const COPIED = new Set(["prompt", "file", "request_id"]);

function facts(cell) {
  const list = el("dl");
  if (cell.clip && !cell.clip.startsWith("data:")) list.append(fact("file", fileOf(cell), fileOf(cell)));
  for (let at = 0; at < cell.facts.length; at += 2) {
    const value = text(cell.facts[at + 1]);
    const isLink = /^https?:\/\/[^\s]+$/.test(value);
    const shown = isLink ? el("a", { href: value, rel: "noreferrer noopener", target: "_blank" }, value) : value;
    list.append(fact(text(cell.facts[at]), value, shown));
  }
  return list;
}

function fact(name, value, shown) {
  const copy = COPIED.has(name) ? [" ", el("button", { type: "button", class: "copy", "data-copy": value, "data-what": name }, "Copy")] : [];
  return el("div", {}, el("dt", {}, name), el("dd", {}, shown, ...copy));
}

/** The clip as a file of its own; a page that is a file itself has its clips beside it, and shows this one. */
function download(cell) {
  if (!cell?.clip) return say("There is no clip to download here");
  const link = el("a", { href: cell.clip, download: `${cell.rowId}.mp4` });
  if (location.protocol === "file:" && !cell.clip.startsWith("data:")) link.target = "_blank";
  link.click();
  say(`Downloading ${cell.rowId}.mp4`);
}

function stepBox(by_) {
  const next = order[order.indexOf(boxCell) + by_];
  if (next) openBox(next);
  else say(by_ > 0 ? "This is the last clip" : "This is the first clip");
}

function toggleBoxPlay() {
  const video = boxVideo();
  if (video) video.paused ? video.play().catch(() => {}) : video.pause();
}

function stepBoxFrame(by_) {
  const video = boxVideo();
  if (!video) return;
  video.pause();
  video.currentTime = Math.max(0, video.currentTime + by_ * FRAME_S);
}

/** Money, run and files stand behind "details", here and on the sheet. */
function toggleDetails(isOn = !document.body.classList.contains("details")) {
  document.body.classList.toggle("details", isOn);
  memory.write("dop-details", isOn ? "yes" : "");
  for (const button of document.querySelectorAll('[data-do="details"]')) button.setAttribute("aria-pressed", isOn);
}

function closeBox() {
  for (const video of by("box-show").querySelectorAll("video")) unload(video);
  const cell = boxCell;
  boxCell = null;
  if (filtersSet() || view.sort || extraAxes.has(view.x) || extraAxes.has(view.y)) redraw();
  if (cell && order.includes(cell)) moveTo(cell);
  leaveFullScreen();
}

function leaveFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen().catch(() => {});
}

function toggleFull(dialog) {
  if (document.fullscreenElement) leaveFullScreen();
  else dialog.requestFullscreen?.().catch(() => say("This browser allows no full screen here"));
}

/** One clip, over the whole screen. */
function openFull(cell) {
  if (!cell) return;
  openBox(cell);
  if (by("box").open && !document.fullscreenElement) toggleFull(by("box"));
}
