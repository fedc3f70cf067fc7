"""Where clips are made: render threads of low priority, a folder of finished clips, the image each job starts from."""

from __future__ import annotations

import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.sandbox.image_store import UPLOAD_LIMIT_BYTES, ImageStore, is_loopback
from pipeline.sandbox.jobs import Job, JobOutcome
from pipeline.sandbox.rendering.clip import ClipPlan, render
from pipeline.sandbox.rendering.defects import chosen
from pipeline.sandbox.rendering.motion import preset_name
from pipeline.sandbox.rendering.placeholder import draw_scene
from pipeline.sandbox.settings import LONG_SIDES_PX, SandboxSettings

NICENESS = 5
FETCH_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object) -> None:
        return None


class ClipRenderer:
    """Makes each clip once. All methods but the rendering itself are quick and belong to the event loop's thread."""

    def __init__(self, folder: Path, images: ImageStore, settings: SandboxSettings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._images = images
        self._settings = settings
        for part in folder.glob("*.part.mp4"):  # of a sandbox that was killed while it drew
            part.unlink()
        self._ready = {file.stem for file in folder.glob("*.mp4")}
        self._spoiled: set[str] = set()
        self._started: set[str] = set()
        threads = settings.render_threads or min(2, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, "sandbox-render", initializer=_lower_priority)

    def file(self, job: Job) -> Path:
        """Where the job's clip is, or will be."""
        return self._folder / f"{job.clip_key}.mp4"

    def ready(self, job: Job) -> bool:
        """Whether the job's clip exists."""
        return job.clip_key in self._ready

    def spoiled(self, job: Job) -> bool:
        """Whether the job's clip cannot be made."""
        return job.clip_key in self._spoiled

    def begin(self, job: Job, base_url: str, *, done: Callable[[], None] = lambda: None) -> None:
        """See to it that the clip gets made; calls `done`, in a render thread, when it was."""
        if job.fate is not JobOutcome.COMPLETED or job.clip_key in self._started | self._ready:
            return
        self._started.add(job.clip_key)
        if self._settings.inline:
            self._make(job, base_url, done)
        else:
            self._pool.submit(self._make, job, base_url, done)

    def close(self) -> None:
        """Drop what waits and finish what is being drawn."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, job: Job, base_url: str, done: Callable[[], None]) -> None:
        try:
            render(self._plan(job, base_url), self.file(job))
        except (OSError, ValueError, SyntaxError) as error:
            _log.warning("job %s: no clip: %s", job.job_set_id, error)
            self._spoiled.add(job.clip_key)
        else:
            self._ready.add(job.clip_key)
        done()

    def _plan(self, job: Job, base_url: str) -> ClipPlan:
        body = job.body
        ends = body.get("input_images_end")
        images = body["input_images"]
        assert isinstance(images, list)
        return ClipPlan(
            image=self._image(str(images[0]), base_url),
            end_image=self._image(str(ends[-1]), base_url) if isinstance(ends, list) else None,
            motion=preset_name(str(body["motions_id"])),
            strength=float(str(body["motions_strength"])),
            seed=int(str(body["seed"])),
            prompt=str(body["prompt"]),
            long_side_px=LONG_SIDES_PX[self._settings.size],
            model=str(body.get("model", "")),
            defect=chosen(job.clip_key, 1.0 if body["seed"] in self._settings.defect_seeds else self._settings.defects),
        )

    def _image(self, image: str, base_url: str) -> bytes:
        file = self._images.local_file(image, base_url)
        if file is not None:
            return file.read_bytes()
        if is_loopback(image) and (fetched := _fetch(image)) is not None:
            return fetched
        return draw_scene(image)


def _lower_priority() -> None:
    """Let the event loop and everybody else go first. Linux counts niceness per thread."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _fetch(url: str) -> bytes | None:
    """Bytes of a loopback URL; None when it cannot be had. Never follows a redirect, never asks a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    try:
        with opener.open(url, timeout=FETCH_TIMEOUT_S) as answer:
            content: bytes = answer.read(UPLOAD_LIMIT_BYTES + 1)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return content if len(content) <= UPLOAD_LIMIT_BYTES else None
