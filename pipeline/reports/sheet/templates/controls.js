// The bar: playback, axes, size, filters, theme.

function option(value, label = value) {
  return el("option", { value }, label);
}

function fillControls() {
  for (const side of ["x", "y"]) {
    const none = side === "x" ? "(flowing)" : "(one row)";
    by(`axis-${side}`).replaceChildren(option("", none), ...sheet.axes.map(({ name }) => option(name)));
  }
  const models = new Set(cells.map((cell) => cell.model).filter(Boolean));
  by("filter-model").append(...[...models].sort().map((model) => option(model)));
  const tags = new Set(cells.flatMap((cell) => cell.tags));
  by("filter-tag").append(...[...tags].sort().map((tag) => option(tag)));
  by("filter-tag").parentElement.hidden = tags.size === 0;
  const prices = new Set(cells.map((cell) => cell.price).filter(Boolean));
  by("filter-price").append(...[...prices].sort((one, other) => dollars(one) - dollars(other)).map((price) => option(price)));
}

function showAxes() {
  by("axis-x").value = view.x ?? "";
  by("axis-y").value = view.y ?? "";
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
  filter.tag = by("filter-tag").value;
  filter.price = by("filter-price").value;
  filter.text = by("filter-text").value.trim().toLowerCase();
  filter.picks = by("filter-picks").checked;
  filter.check = new Set([...by("filters").querySelectorAll('[name="check"]:checked')].map((box) => box.value));
  filter.defect = by("filter-defect")?.value ?? "";
  view.sort = by("sort")?.value ?? "";
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
  by("picks-save").addEventListener("click", savePicks);
  by("theme").addEventListener("click", toggleTheme);
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
  by("sheet").addEventListener("pointerover", (event) => {
    const cell = cellAt(event);
    if (event.pointerType !== "mouse" || !cell) return;
    showTools(cell);
    beginHover(cell);
  });
  by("sheet").addEventListener("pointerout", (event) => {
    if (!event.relatedTarget?.closest?.(".cell")) endHover();
  });
  by("sheet").addEventListener("focusin", (event) => {
    const cell = cellAt(event);
    if (cell) focusable(cell);
  });
  for (const id of ["box", "versus", "help"]) by(id).addEventListener("click", onDialogClick);
  by("box").addEventListener("close", closeBox);
  by("versus").addEventListener("close", closeVersus);
}
