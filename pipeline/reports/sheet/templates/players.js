// Clips in step. One clock leads, each video follows: small lags are made good by speed, large ones by a jump.

const MAX_PLAYERS = 48; // browsers give a page 75 at most, some phones 40
const FRAME_S = 1 / 24;
const USUAL_LENGTH_S = 5; // until the first clip tells
const clampedRate = (rate) => Math.min(4, Math.max(0.1, rate));

/** Leads a changing set of videos. `onTime(time, length, isPlaying)` is called whenever the clock is to be shown. */
function makeConductor(onTime) {
  const videos = new Set();
  let time = 0;
  let since = 0;
  let speed = 1;
  let isWanted = false; // what the user asked for
  let isPlaying = false; // whether the clock runs: not while videos are brought into line
  let turn = 0;
  let checkedAt = 0;

  const now = () => performance.now() / 1000;
  const length = () => Math.max(0, ...[...videos].map((video) => video.duration || 0)) || USUAL_LENGTH_S;
  const position = () => (isPlaying ? time + (now() - since) * speed : time);
  const show = () => onTime(Math.min(position(), length()), length(), isWanted);

  function follow(video, at) {
    const end = video.duration || length();
    if (at >= end - 0.02 || video.readyState < 2 || video.seeking) return;
    const lag = at - video.currentTime;
    if (Math.abs(lag) > 0.3) video.currentTime = Math.min(at + 0.04, end);
    video.playbackRate = Math.abs(lag) > 0.015 ? clampedRate(speed * (1 + Math.max(-0.4, Math.min(0.4, lag * 4)))) : speed;
    if (video.paused) video.play().catch(() => {});
  }

  const ready = (video) =>
    new Promise((done) => {
      if (video.readyState >= 3) done();
      else for (const event of ["canplay", "error", "emptied"]) video.addEventListener(event, done, { once: true });
    });

  const landed = (video) =>
    new Promise((done) => {
      if (!video.seeking) done();
      else for (const event of ["seeked", "error", "emptied"]) video.addEventListener(event, done, { once: true });
    });

  const atMost = (wait_ms, promises) =>
    Promise.race([Promise.all(promises), new Promise((done) => setTimeout(done, wait_ms))]);

  /** All videos to the clock's time, and off together once they are there. */
  async function start() {
    const mine = ++turn;
    isPlaying = false;
    await atMost(1500, [...videos].map(ready));
    for (const video of videos) {
      video.pause();
      video.currentTime = Math.min(time, video.duration || time);
    }
    await atMost(800, [...videos].map(landed));
    if (mine !== turn) return;
    isPlaying = true;
    since = now();
    for (const video of videos) video.play().catch(() => {});
    beat();
  }

  function beat() {
    if (!isPlaying) return;
    if (position() >= length()) {
      time = 0;
      start();
      return;
    }
    if (now() - checkedAt > 0.1) {
      checkedAt = now();
      for (const video of videos) follow(video, position());
    }
    show();
    requestAnimationFrame(beat);
  }

  function play() {
    if (time >= length() - FRAME_S) time = 0;
    isWanted = true;
    start();
  }

  function pause() {
    turn += 1;
    isWanted = false;
    time = Math.min(position(), length());
    isPlaying = false;
    for (const video of videos) {
      video.pause();
      video.currentTime = Math.min(time, video.duration || time);
    }
    show();
  }

  return {
    add(video) {
      videos.add(video);
      ready(video).then(() => {
        if (!videos.has(video)) return;
        video.currentTime = Math.min(position(), video.duration || 0);
        if (isPlaying) follow(video, position());
        show();
      });
    },
    remove(video) {
      videos.delete(video);
    },
    play,
    pause,
    toggle: () => (isWanted ? pause() : play()),
    seek(to) {
      if (isWanted) pause();
      time = Math.max(0, Math.min(to, length()));
      for (const video of videos) video.currentTime = Math.min(time, video.duration || time);
      show();
    },
    setSpeed(to) {
      time = position();
      since = now();
      speed = to;
      for (const video of videos) video.playbackRate = to;
    },
    get time() {
      return position();
    },
    get isPlaying() {
      return isWanted;
    },
    get size() {
      return videos.size;
    },
  };
}

const players = new Map();
const onScreen = new Set();
let isEngaged = false;
let hovered = null;

const conductor = makeConductor((time, length, isPlaying) => {
  by("scrub").max = length.toFixed(2);
  by("scrub").value = time;
  by("clock").textContent = `${time.toFixed(1)} / ${length.toFixed(1)} s`;
  by("play").setAttribute("aria-pressed", isPlaying);
});

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const cell = cells[Number(target.dataset.n)];
      if (isIntersecting) onScreen.add(cell);
      else onScreen.delete(cell);
    }
    if (isEngaged) castPlayers();
  },
  { rootMargin: "60px" },
);

function makeVideo(cell) {
  const video = el("video", { muted: "", playsinline: "", preload: "auto", "aria-hidden": "true", tabindex: "-1" });
  video.muted = true;
  video.disableRemotePlayback = true;
  video.src = cell.clip;
  // A clip that is not there any more: the poster below it stays.
  video.addEventListener("error", () => video.getAttribute("src") && (video.hidden = true));
  return video;
}

/** A video over each clip on screen, and none elsewhere: a page of a thousand videos would not move. */
function castPlayers() {
  const wanted = [...onScreen].filter((cell) => cell.clip).sort((one, other) => one.n - other.n).slice(0, MAX_PLAYERS);
  const keep = new Set(wanted);
  for (const cell of players.keys()) if (!keep.has(cell)) dismiss(cell);
  for (const cell of wanted) {
    if (players.has(cell)) continue;
    const video = makeVideo(cell);
    players.set(cell, video);
    elementOf(cell).querySelector(".shot").append(video);
    conductor.add(video);
  }
}

function dismiss(cell) {
  const video = players.get(cell);
  players.delete(cell);
  conductor.remove(video);
  unload(video);
}

function unload(video) {
  video.pause();
  video.removeAttribute("src");
  video.load();
  video.remove();
}

function engage() {
  endHover();
  isEngaged = true;
  castPlayers();
}

/** Back to the posters. */
function disengage() {
  conductor.pause();
  isEngaged = false;
  for (const cell of [...players.keys()]) dismiss(cell);
  conductor.seek(0);
}

function togglePlay() {
  engage();
  const waiting = [...onScreen].filter((cell) => cell.clip).length - players.size;
  if (!players.size) say("No clip on screen");
  else if (waiting > 0 && !conductor.isPlaying) say(`Playing ${players.size} clips; ${waiting} more on screen stand still`);
  conductor.toggle();
}

function beginHover(cell) {
  if (isEngaged || !cell.clip || hovered?.cell === cell) return;
  endHover();
  const timer = setTimeout(() => {
    hovered.video = makeVideo(cell);
    hovered.video.loop = true;
    elementOf(cell).querySelector(".shot").append(hovered.video);
    hovered.video.play().catch(() => {});
  }, 140);
  hovered = { cell, timer, video: null };
}

function endHover() {
  if (!hovered) return;
  clearTimeout(hovered.timer);
  if (hovered.video) unload(hovered.video);
  hovered = null;
}
