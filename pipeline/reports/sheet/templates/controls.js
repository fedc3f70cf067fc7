// The bar: playback, axes, size, filters, theme.

function option(value, label = value) {
  return el("option", { value }, label);
}

function fillControls() {
  for (const side of ["x", "y"]) {
    const none = side === "x" ? "(flowing)" : "(one row)";
    const names = [...sheet.axes.map(({ name }) => name), ...extraAxes.keys()];
    by(`axis-${side}`).replaceChildren(option("", none), ...names.map((name) => option(name)));
  }
  const models = new Set(cells.map((cell) => cell.model).filter(Boolean));
  by("filter-model").append(...[...models].sort().map((model) => option(model)));
  const motions = new Set(cells.map((cell) => factOf(cell, "motion")).filter(Boolean));
  by("filter-motion").append(...[...motions].sort().map((motion) => option(motion)));
  by("filter-motion").parentElement.hidden = motions.size < 2;
  const tags = new Set(cells.flatMap((cell) => cell.tags));
  by("filter-tag").append(...[...tags].sort().map((tag) => option(tag)));
  by("filter-tag").parentElement.hidden = tags.size === 0;
  const prices = new Set(cells.map((cell) => cell.price).filter(Boolean));
  by("filter-price").append(...[...prices].sort((one, other) => dollars(one) - dollars(other)).map((price) => option(price)));
}

function showAxes() {
  by("axis-x").value = view.x ?? "";
  by("axis-y").value = view.y ?? "";
  by("sort").value = view.sort;
}

/** The other side gives way when both would show the same axis. */
function chooseAxis(side, name) {
  const other = side === "x" ? "y" : "x";
  if (name !== null && view[other] === name) view[other] = view[side];
  view[side] = name;
  view.page = 0;
  showAxes();
  redraw();
}

function redraw() {
  if (isEngaged) disengage();
  draw();
  by("filter-count").textContent = filtersSet() || "";
}

function readFilters() {
  const { filter } = view;
  filter.status = new Set([...by("filters").querySelectorAll('[name="status"]:checked')].map((box) => box.value));
  filter.model = by("filter-model").value;
  filter.motion = by("filter-motion").value;
  filter.tag = by("filter-tag").value;
  filter.price = by("filter-price").value;
  filter.text = by("filter-text").value.trim().toLowerCase();
  filter.verdict = new Set([...by("filters").querySelectorAll('[name="verdict"]:checked')].map((box) => box.value));
  filter.stars = Number(by("filter-stars").value);
  filter.check = new Set([...by("filters").querySelectorAll('[name="check"]:checked')].map((box) => box.value));
  filter.defect = by("filter-defect")?.value ?? "";
  view.page = 0;
  redraw();
}

function toggleFilters(isOpen = by("filters").hidden) {
  by("filters").hidden = !isOpen;
  by("filter-open").setAttribute("aria-expanded", isOpen);
  if (isOpen) by("filter-text").focus();
}

function toggleTheme() {
  const root = document.documentElement;
  const isDark = (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = isDark ? "light" : "dark";
  memory.write("dop-theme", root.dataset.theme);
}

function resize(by_) {
  isSizeChosen = true;
  setSize(Math.min(560, Math.max(96, Number(by("size").value) * by_)));
}

function showTools(cell) {
  if (!cell?.clip) return;
  toolsCell = cell;
  by("tools").hidden = false;
  elementOf(cell).append(by("tools"));
  drawMarks();
}

function wireControls() {
  by("play").addEventListener("click", togglePlay);
  by("scrub").addEventListener("input", (event) => {
    engage();
    conductor.seek(Number(event.target.value));
  });
  by("speed").addEventListener("change", (event) => conductor.setSpeed(Number(event.target.value)));
  for (const side of ["x", "y"]) by(`axis-${side}`).addEventListener("change", (event) => chooseAxis(side, event.target.value || null));
  by("size").addEventListener("input", (event) => {
    isSizeChosen = true;
    setSize(Number(event.target.value));
  });
  by("filter-open").addEventListener("click", () => toggleFilters());
  by("filters").addEventListener("input", readFilters);
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("filters").addEventListener("reset", () => setTimeout(readFilters));
  by("tabs").addEventListener("change", ({ target }) => {
    view.tabs[target.dataset.axis] = target.value;
    view.page = 0;
    redraw();
  });
  by("pager").addEventListener("click", ({ target }) => {
    if (!target.dataset.page) return;
    view.page = Number(target.dataset.page);
    redraw();
    scrollTo(0, 0);
  });
  by("compare-open").addEventListener("click", openVersus);
  by("sort").addEventListener("change", (event) => {
    view.sort = event.target.value;
    view.page = 0;
    redraw();
  });
  by("undo").addEventListener("click", undoAndShow);
  by("duel-open").addEventListener("click", () => openDuel(current));
  by("reviews-save")?.addEventListener("click", saveReviews);
  by("reviews-load")?.addEventListener("click", () => by("reviews-file").click());
  by("reviews-file")?.addEventListener("change", ({ target }) => {
    if (target.files[0]) loadReviews(target.files[0]);
    target.value = "";
  });
  by("next-model").replaceChildren(...Object.keys(sheet.prices).map((model) => option(model)));
  by("next-model").value = "";
  by("next-model").addEventListener("change", drawMarks);
  by("next-copy").addEventListener("click", () => copyText(by("next-command").textContent, "the command"));
  by("details-open").addEventListener("click", () => toggleDetails());
  by("wipe").addEventListener("input", (event) => setWipe(Number(event.target.value)));
  by("theme").addEventListener("click", toggleTheme);
  by("numbers").addEventListener("click", ({ target }) => target.dataset.copy && copyText(target.dataset.copy, "the command"));
  by("help-open").addEventListener("click", () => by("help").showModal());
  by("versus-scrub").addEventListener("input", (event) => versus.seek(Number(event.target.value)));
}

function wireSheet() {
  const cellAt = (event) => {
    const element = event.target.closest?.(".cell");
    return element?.dataset.n === undefined ? null : cells[Number(element.dataset.n)];
  };
  by("sheet").addEventListener("click", (event) => {
    const button = event.target.closest("#tools button");
    if (button) return actions[button.dataset.do](toolsCell);
    if (!event.target.closest(".shot") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openBox(cellAt(event));
  });
  wirePointer(cellAt);
  by("sheet").addEventListener("focusin", (event) => {
    const cell = cellAt(event);
    if (cell) focusable(cell);
  });
  by("sheet").addEventListener("click", ({ target }) => {
    const first = target.closest("[data-first]");
    if (first) moveTo(cells[Number(first.dataset.first)]);
  });
  // A picture that is not there any more (a page that was mailed without its folder): words in its place.
  document.addEventListener("error", ({ target }) => target.matches?.("img") && loseImage(target), true);
  document.addEventListener("load", ({ target }) => target.matches?.(".cell .shot img") && shape(target), true);
  const closing = { box: closeBox, versus: closeVersus, duel: closeDuel, note: () => {}, help: () => {} };
  for (const [id, close] of Object.entries(closing)) {
    by(id).addEventListener("click", onDialogClick);
    by(id).addEventListener("close", close);
  }
}

/** What the pointer is over is the current clip. A page that scrolls below a pointer that rests moves nothing. */
function wirePointer(cellAt) {
  let last = "";
  by("sheet").addEventListener("pointermove", (event) => {
    const at = `${event.screenX},${event.screenY}`;
    const cell = cellAt(event);
    if (event.pointerType !== "mouse" || !cell || at === last) return;
    last = at;
    if (cell === hovered?.cell) return;
    showTools(cell);
    beginHover(cell);
    if (cell === current) return;
    focusable(cell);
    if (document.activeElement === document.body || document.activeElement.closest("#sheet"))
      elementOf(cell).querySelector(".shot").focus({ preventScroll: true });
  });
  by("sheet").addEventListener("pointerout", (event) => {
    if (!event.relatedTarget?.closest?.(".cell")) endHover();
  });
}

function loseImage(image) {
  const shot = image.closest(".shot");
  if (!shot) return void (image.hidden = true);
  const cell = cells[Number(image.closest(".cell")?.dataset.n)];
  const words = el("span", { class: "note" }, el("b", {}, cell?.rowId ?? ""), el("i", {}, "its picture is not beside this page"));
  image.replaceWith(words);
}

const [usualWidth, usualHeight] = getComputedStyle(document.documentElement).getPropertyValue("--shape").split("/").map(Number);
const usualShape = usualWidth / usualHeight;

/** A clip of another shape than the run's usual one gets a tile of its own shape, and no bars. */
function shape(image) {
  const { naturalWidth: width, naturalHeight: height } = image;
  if (width && height && Math.abs(width / height / usualShape - 1) > 0.02) image.closest(".shot").style.aspectRatio = `${width}/${height}`;
}

const actions = {
  keep: (cell) => setVerdict(cell, "keep"),
  reject: (cell) => setVerdict(cell, "reject"),
  note: openNote,
  download: (cell) => download(cell),
  compare: (cell) => toggleCompare(cell),
  previous: () => stepBox(-1),
  next: () => stepBox(1),
  details: () => toggleDetails(),
  "full-box": () => toggleFull(by("box")),
  "full-versus": () => toggleFull(by("versus")),
  play: () => versus.toggle(),
  wipe: () => toggleOver("wipe"),
  difference: () => toggleOver("difference"),
  order: showOrder,
  skip: drawDuel,
  "save-note": saveNote,
  clear: () => {
    by("versus").close();
    clearCompared();
  },
};

function onDialogClick(event) {
  const dialog = event.currentTarget;
  const { target } = event;
  const button = target.closest("button[data-do]");
  const [side, take, pane, stars] = ["side", "take", "pane", "stars"].map((name) => target.closest(`[data-${name}]`)?.dataset[name]);
  if (event.detail > 0 && target.closest("button")) dialog.querySelector("h2").focus(); // so that space plays, and presses no button
  const copied = target.closest("[data-copy]")?.dataset;
  if (copied) copyText(copied.copy, `the ${copied.what}`);
  else if (target === dialog || button?.dataset.do === "close") dialog.close();
  else if (button) actions[button.dataset.do](boxCell);
  else if (stars) setStars(boxCell, ownOf(boxCell).stars === Number(stars) ? 0 : Number(stars));
  else if (side) decide(Number(side));
  else if (take) openBox(cells[Number(take)]);
  else if (pane) choosePane(panes[Number(pane)]);
}
