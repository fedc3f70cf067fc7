// Winners: marked on the page, kept by the browser, saved as a file that `dop derive` reads.

const picked = new Set(JSON.parse(memory.read(`dop-picks:${sheet.run}`) ?? "[]"));
const compared = [];
const MAX_COMPARED = 4;

function pickKey(cell) {
  return cell.requestId;
}

function togglePick(cell) {
  if (!cell?.clip) return;
  const key = pickKey(cell);
  if (!picked.delete(key)) picked.add(key);
  memory.write(`dop-picks:${sheet.run}`, JSON.stringify([...picked]));
  elementOf(cell).classList.toggle("picked", picked.has(key));
  say(picked.has(key) ? `Picked ${cell.rowId}` : `No longer picked: ${cell.rowId}`);
  drawMarks();
}

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

function drawMarks() {
  const mine = cells.filter((cell) => picked.has(pickKey(cell)));
  by("picks-save").disabled = mine.length === 0;
  by("picks-count").textContent = mine.length === 0 ? "No picks" : `Save ${mine.length} pick${mine.length > 1 ? "s" : ""}`;
  by("compare-open").disabled = compared.length < 2;
  by("compare-count").textContent = compared.length || "";
  for (const button of by("panes").querySelectorAll("[data-pane]"))
    button.setAttribute("aria-pressed", picked.has(pickKey(compared[button.dataset.pane])));
  for (const [holder, cell] of [[by("tools"), toolsCell], [by("box"), boxCell]]) {
    if (!cell) continue;
    holder.querySelector('[data-do="pick"]').setAttribute("aria-pressed", picked.has(pickKey(cell)));
    holder.querySelector('[data-do="compare"]').setAttribute("aria-pressed", compared.includes(cell));
  }
}

/** What picks.json holds. */
function picksFile() {
  const mine = cells.filter((cell) => picked.has(pickKey(cell)));
  return {
    version: 1,
    run: sheet.run,
    gateway: sheet.gateway,
    picks: mine.map((cell) => ({ row_id: cell.rowId, request_id: cell.requestId, attempt: cell.attempt })),
  };
}

function savePicks() {
  const content = JSON.stringify(picksFile(), null, 2) + "\n";
  const link = el("a", { download: "picks.json", href: URL.createObjectURL(new Blob([content], { type: "application/json" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`picks.json: next, dop derive ${sheet.run} --picks picks.json --set model=...`);
}
