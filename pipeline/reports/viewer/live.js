// Only on a page that `dop view` gives out: the run's news as they come, and reviews that go to the ledger.

const numberOf = (words) => sheet.strings.push(words) - 1;
const place = document.querySelector(".what p");
const badge = el("span", { class: "badge", id: "live-badge" });
badge.hidden = true;
place.prepend(badge);
place.append(el("a", { href: "../../" }, "All runs"), el("a", { href: "../../spend" }, "Spend"));

/** The runs whose clips are here too, as a part of the addresses that the page asks. */
const beside = sheet.beside.map((run) => `with=${encodeURIComponent(run)}`).join("&");
if (beside) by("kept-download").href = `kept.zip?${beside}`;
if (served.others.length) {
  const choice = el("select", { id: "beside" }, option("", "no other run"), ...served.others.map(([run, name]) => option(run, name)));
  choice.value = sheet.beside[0] ?? "";
  choice.addEventListener("change", () => location.assign(location.pathname + (choice.value ? `?with=${encodeURIComponent(choice.value)}` : "")));
  place.append(el("label", {}, "Beside", choice));
}

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
  element.querySelector(".tells").textContent = old.querySelector(".tells").textContent;
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
let isOver = served.ended;
function finish(isEnded) {
  if (isEnded && !isOver) {
    if (!isEngaged) draw();
    refreshNumbers();
  }
  isOver = isEnded;
}

/** The numbers below the clips as they are now: they came with the page and do not follow the run. */
function refreshNumbers() {
  const request = new XMLHttpRequest(); // it parses a page without running what is in it
  request.open("GET", location.pathname);
  request.responseType = "document";
  request.addEventListener("load", () => {
    const plots = request.response?.querySelector("#numbers .plots");
    if (plots) by("numbers").querySelector(".plots").replaceWith(document.adoptNode(plots));
  });
  request.send();
}
by("numbers-open").addEventListener("toggle", ({ target }) => target.open && refreshNumbers());

let reload = null;
/** The manifest was read again, or too much happened: the arrangement itself is old. */
function askToReload() {
  if (reload) return;
  reload = el("button", { type: "button", id: "live-reload" }, "The run has changed: reload the page");
  reload.addEventListener("click", () => location.reload());
  place.append(reload);
}

const listeners = {
  status: (event) => beside || showStatus(JSON.parse(event.data)), // two runs side by side are a still picture of both
  stale: () => beside || askToReload(),
  reviews: (event) => hearReviews(JSON.parse(event.data)),
  cells(event) {
    if (beside) return;
    JSON.parse(event.data).forEach(renew);
    showCounts();
    if (isEngaged) castPlayers();
    else if (filtersSet()) draw();
    drawMarks();
  },
};

let news = null;
let seenUpTo = served.event;
/** Only while the page is visible: a browser opens six connections to a server, and a stream in a hidden tab holds one. */
function listen() {
  news?.close();
  if (document.hidden) return;
  news = new EventSource(`events?after=${seenUpTo}&requests=${served.requests}&reviews=${served.reviews}&${beside}`);
  for (const [name, listener] of Object.entries(listeners)) {
    news.addEventListener(name, (event) => {
      seenUpTo = Number(event.lastEventId) || seenUpTo;
      listener(event);
    });
  }
}
document.addEventListener("visibilitychange", listen);
listen();

// --- reviews

const MAX_SENT = 200; // changes of one request
const outboxName = `dop-outbox:${sheet.run}:${sheet.reviewer}:${Math.random().toString(36).slice(2)}`;
let isSending = false;
let pause_ms = 500;

/** What another page or reviewer said. */
function hearReviews({ number, changes }) {
  served.reviews = number;
  for (const change of changes) {
    if (!takeIn(change)) continue;
    const cell = byRequest.get(change.request_id);
    if (!cell) continue;
    if (change.rival) paintTakes(cell);
    else repaint(cell);
  }
  drawMarks();
}

/** A change counts as saved when the server says that it is on the disk; until then it is kept here and sent again. */
send = async () => {
  memory.write(outboxName, JSON.stringify(outbox));
  showSaved();
  if (isSending || !outbox.length) return;
  isSending = true;
  const part = outbox.slice(0, MAX_SENT);
  try {
    const answer = await fetch(`reviews?${beside}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ changes: part }),
      keepalive: true,
    });
    if (!answer.ok) throw new Error(await answer.text());
    outbox = outbox.slice(part.length);
    memory.write(outboxName, outbox.length ? JSON.stringify(outbox) : null);
    pause_ms = 500;
    showSaved();
    if (outbox.length) setTimeout(send);
  } catch (error) {
    showSaved(error.message);
    pause_ms = Math.min(10_000, pause_ms * 2);
    setTimeout(send, pause_ms);
  } finally {
    isSending = false;
  }
};

function showSaved(trouble = "") {
  const count = outbox.length;
  by("saved").classList.toggle("wrong", Boolean(trouble));
  if (trouble) by("saved").textContent = `${count} not saved (${trouble.trim()}); it is tried again`;
  else by("saved").textContent = count ? "saving" : kept.length ? "saved" : "";
}

/** What an earlier page could not send: the ledger takes each change once, however often it is sent. */
function adoptOutboxes() {
  for (const name of memory.names(`dop-outbox:${sheet.run}:${sheet.reviewer}:`)) {
    const left = JSON.parse(memory.read(name) ?? "[]");
    memory.write(name, null);
    for (const change of left) {
      takeIn(change);
      outbox.push(change);
      kept.push(change);
    }
  }
  if (!outbox.length) return;
  showAllMarks();
  send();
}
adoptOutboxes();
addEventListener("beforeunload", (event) => outbox.length && event.preventDefault());
