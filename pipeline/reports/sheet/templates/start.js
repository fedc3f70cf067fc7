// Puts the parts together. Without scripts the page is the plain sheet it came as.

function measureBar() {
  const bar = by("bar");
  const height = getComputedStyle(bar).position === "sticky" ? bar.getBoundingClientRect().height : 0;
  document.documentElement.style.setProperty("--bar", `${Math.floor(height)}px`);
}

const theme = memory.read("dop-theme");
if (theme) document.documentElement.dataset.theme = theme;
by("bar").hidden = false;
recallReviews();
adoptCells();
fillControls();
recall();
toggleDetails(memory.read("dop-details") === "yes");
showAxes();
wireControls();
wireSheet();
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return;
  if (conductor.isPlaying) conductor.pause();
  if (versus.isPlaying) versus.pause();
});
addEventListener("resize", fit);
new ResizeObserver(measureBar).observe(by("bar"));
measureBar();
draw();
drawMarks();
if (current) elementOf(current).querySelector(".shot").focus({ preventScroll: true });
