// Only on a page that `dop view` gives out: the run's news as they come, and picks that are saved beside the run.

const byRequest = new Map(cells.filter((cell) => cell.requestId).map((cell) => [cell.requestId, cell]));
const numberOf = (words) => sheet.strings.push(words) - 1;
const place = document.querySelector(".what p");
const badge = el("span", { class: "badge", id: "live-badge" });
badge.hidden = true;
place.prepend(badge);
place.append(el("a", { href: "../../" }, "All runs"), el("a", { href: "../../spend" }, "Spend"));

/** One cell as it is now. Its element is made again and takes the old one's place; what plays in it stops. */
function renew(fresh) {
  const cell = byRequest.get(fresh.requestId);
  if (!cell) return askToReload();
  if (hovered?.cell === cell) endHover();
  if (players.has(cell)) dismiss(cell);
  const { facts: words, history: lines, ...plain } = fresh;
  Object.assign(cell, plain, { facts: words.map(numberOf), history: lines.map(numberOf), search: undefined });
  const old = elements.get(cell.n);
  if (!old) return;
  if (old.contains(by("tools"))) {
    document.body.append(by("tools"));
    by("tools").hidden = true;
  }
  const hadFocus = old.contains(document.activeElement);
  watcher.unobserve(old);
  onScreen.delete(cell);
  elements.delete(cell.n);
  const element = elementOf(cell);
  element.querySelector(".name").textContent = old.querySelector(".name").textContent;
  old.replaceWith(element);
  if (cell === current) element.querySelector(".shot").tabIndex = 0;
  if (hadFocus) element.querySelector(".shot").focus({ preventScroll: true });
  if (cell === boxCell && by("box").open && !by("box-show").querySelector("video")) openBox(cell);
}

function showStatus(status) {
  for (const head of document.querySelectorAll(".head .totals dt")) {
    const value = head.nextElementSibling;
    if (head.textContent === "done") value.firstChild.data = String(status.done);
    else if (status.shown[head.textContent]) value.textContent = status.shown[head.textContent];
  }
  const open = status.new + status.in_flight;
  badge.hidden = status.ended || open === 0;
  badge.textContent = `${status.in_flight} in flight, ${status.new} to go`;
  showCounts();
  finish(status.ended);
}

/** How many cells are in each state: in the filter, and in the head where the user should know. */
function showCounts() {
  const counts = Map.groupBy(cells, (cell) => cell.state);
  const count = (state) => counts.get(state)?.length ?? 0;
  for (const box of by("filters").querySelectorAll('[name="status"]'))
    box.nextElementSibling.textContent = `${stateWord(box.value)} ${count(box.value)}`;
  for (const trouble of document.querySelectorAll("[data-states]")) {
    const all = trouble.dataset.states.split(" ").reduce((sum, state) => sum + count(state), 0);
    trouble.hidden = all === 0;
    trouble.querySelector("dd").textContent = all;
  }
}

/** At the end the heads of rows get their start frames, unless something plays. */
let isOver = false;
function finish(isEnded) {
  if (isEnded && !isOver && !isEngaged) draw();
  isOver = isEnded;
}

let reload = null;
/** The manifest was read again, or too much happened: the arrangement itself is old. */
function askToReload() {
  if (reload) return;
  reload = el("button", { type: "button", id: "live-reload" }, "The run has changed: reload the page");
  reload.addEventListener("click", () => location.reload());
  place.append(reload);
}

const hears = {
  status: (event) => showStatus(JSON.parse(event.data)),
  stale: askToReload,
  cells(event) {
    JSON.parse(event.data).forEach(renew);
    showCounts();
    if (isEngaged) castPlayers();
    else if (filtersSet()) draw();
    drawMarks();
  },
};

let news = null;
let heardUpTo = served.event;
/** Only while the page is visible: a browser opens six connections to a server, and a stream in a hidden tab holds one. */
function listen() {
  news?.close();
  if (document.hidden) return;
  news = new EventSource(`events?after=${heardUpTo}&requests=${served.requests}`);
  for (const [name, hear] of Object.entries(hears)) {
    news.addEventListener(name, (event) => {
      heardUpTo = Number(event.lastEventId) || heardUpTo;
      hear(event);
    });
  }
}
document.addEventListener("visibilitychange", listen);
listen();

let saving = 0;
function savePicksSoon() {
  clearTimeout(saving);
  saving = setTimeout(async () => {
    try {
      const answer = await fetch("picks", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(picksFile()),
      });
      if (!answer.ok) throw new Error(await answer.text());
    } catch (error) {
      say(`The picks could not be saved: ${error.message}`);
    }
  }, 200);
}

const toggleHere = togglePick;
togglePick = (cell) => {
  toggleHere(cell);
  savePicksSoon();
};

/** What was picked before, in whichever browser. */
async function fetchPicks() {
  const answer = await fetch("picks");
  if (!answer.ok) return;
  const saved = new Set((await answer.json()).picks.map((pick) => pick.request_id));
  picked.clear();
  for (const cell of cells) {
    if (saved.has(cell.requestId)) picked.add(pickKey(cell));
    elements.get(cell.n)?.classList.toggle("picked", picked.has(pickKey(cell)));
  }
  drawMarks();
}
fetchPicks();
