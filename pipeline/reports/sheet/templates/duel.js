// Blind duels: two takes of one shot without their names. The winner counts, and the order of the takes follows.

const rankings = new Map(); // shot -> {takes, wins, fit, order}
let duel = null; // {takes, pair, flip, count}
let duelVideos = [];

const duelConductor = makeConductor(() => {});

const shots = new Map();
const likeness = (cell) => `${factOf(cell, "image")}\u0000${factOf(cell, "prompt")}`;
{
  const rows = Map.groupBy(cells, rowOf);
  const alike = Map.groupBy(cells, likeness);
  for (const cell of cells) {
    const row = rows.get(rowOf(cell));
    shots.set(cell, row.length > 1 || !cell.requestId ? row : alike.get(likeness(cell)));
  }
}
/** The takes of a clip's shot: of its row, or where each take has a row, of its picture and prompt. */
const shotOf = (cell) => shots.get(cell);
const takesOf = (cell) => shotOf(cell).filter((other) => other.clip);

/** Duels and their order for the shot of a clip. */
function rankingOf(cell) {
  const key = shotOf(cell);
  if (!rankings.has(key)) rankings.set(key, judged(takesOf(cell)));
  return rankings.get(key);
}

function judged(takes) {
  const at = new Map(takes.map((take, number) => [take.requestId, number]));
  const wins = takes.map(() => takes.map(() => 0));
  let count = 0;
  for (const { request_id: winner, rival, duel: sign } of duelled.values()) {
    const [i, j] = [at.get(winner), at.get(rival)];
    if (i === undefined || j === undefined) continue;
    wins[i][j] = Math.max(0, wins[i][j] + sign);
    count += sign;
  }
  const fit = fitDuels(wins);
  const order = takes.map((_, number) => number).sort((one, other) => fit.strengths[other] - fit.strengths[one]);
  return { takes, wins, fit, order, count };
}

/** A clip's place among the takes of its shot; null before there is a duel. */
function duelRank(cell) {
  if (!duelled.size || !cell.clip) return null;
  const { takes, fit, order, count } = rankingOf(cell);
  if (!count) return null;
  const at = order.indexOf(takes.indexOf(cell));
  const below = order[at + 1];
  const sure = below === undefined ? null : Math.round(100 * sureness(fit, order[at], below));
  const words = sure === null ? `last of ${takes.length} after ${count} duels` : `better than the next with ${sure} %, after ${count} duels`;
  return { place: at + 1, of: takes.length, sure, words };
}

function openDuel(cell) {
  if (!cell) return;
  const takes = takesOf(cell);
  if (takes.length < 2) return say("A duel needs two takes of one shot");
  quiet();
  duel = { cell, takes, pair: [], count: 0 };
  openDialog("duel");
  drawDuel();
}

function drawDuel() {
  const { wins, fit } = rankingOf(duel.cell);
  const pair = nextPair(wins, fit, duel.takes.length > 2 ? duel.pair : []);
  duel.pair = pair;
  const shown = Math.random() < 0.5 ? pair : [...pair].reverse();
  duel.shown = shown.map((number) => duel.takes[number]);
  by("duel-result").hidden = true;
  by("duel-panes").hidden = false;
  letGo();
  by("duel-panes").replaceChildren(
    ...duel.shown.map((take, side) => {
      const video = makeVideo(take);
      duelVideos.push(video);
      duelConductor.add(video);
      const words = side ? "Right" : "Left";
      return el("button", { type: "button", class: "pane", "data-side": side, "aria-label": `${words} is better` }, video, el("span", { class: "number" }, side + 1));
    }),
  );
  drawSure();
  duelConductor.seek(0);
  duelConductor.play();
}

/** How far the order is: the first place with how sure it is. */
function drawSure() {
  const { order, fit, count } = rankingOf(duel.cell);
  const sure = Math.round(100 * sureness(fit, order[0], order[1]));
  by("duel-sure").textContent = count ? `${count} ${count === 1 ? "duel" : "duels"} of this shot: the first place is ${sure} % sure` : "no duel of this shot yet";
}

function decide(side) {
  if (!duel?.shown || !by("duel-result").hidden) return;
  const [winner, loser] = side === 0 ? duel.shown : [...duel.shown].reverse();
  const change = { request_id: winner.requestId, rival: loser.requestId, duel: 1, at: stamp(), who: me };
  undoable.push({ duel: change });
  commit(change);
  paintTakes(duel.cell);
  duel.count += 1;
  drawDuel();
}

function undoDuel({ request_id, rival }) {
  commit({ request_id, rival, duel: -1, at: stamp(), who: me });
  const cell = byRequest.get(request_id);
  if (cell) paintTakes(cell);
  if (duel) drawDuel();
  say("Undone: one duel");
  return cell;
}

function paintTakes(cell) {
  for (const take of takesOf(cell)) if (elements.has(take.n)) paint(take);
}

/** The order, with names: the duel is over, or looked behind. */
function showOrder() {
  letGo();
  duelConductor.pause();
  const { takes, order } = rankingOf(duel.cell);
  const lines = order.map((number, at) => {
    const take = takes[number];
    const rank = duelRank(take);
    const picture = take.poster ? [el("img", { src: take.poster, alt: "" })] : [];
    return el("li", { "data-request": take.requestId }, ...picture, el("b", {}, `${at + 1}. ${take.rowId}`), el("span", {}, rank?.words ?? "no duel yet"));
  });
  by("duel-result").replaceChildren(el("ol", { class: "rankings" }, ...lines));
  by("duel-result").hidden = false;
  by("duel-panes").hidden = true;
}

function letGo() {
  for (const video of duelVideos) {
    duelConductor.remove(video);
    unload(video);
  }
  duelVideos = [];
}

function closeDuel() {
  duelConductor.pause();
  letGo();
  by("duel-panes").replaceChildren();
  const cell = duel?.cell;
  duel = null;
  if (cell && !by("box").open) moveTo(cell);
  leaveFullScreen();
}
