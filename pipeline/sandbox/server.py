"""The sandbox as a server: it opens the folder, listens on 127.0.0.1, routes requests, keeps pictures, and closes.

Submits and polls are handled in `gateway`. It never listens on another address than loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pipeline.sandbox import responses
from pipeline.sandbox.fault_injection import as_json
from pipeline.sandbox.gateway import SandboxHandlers
from pipeline.sandbox.higgsfield import responses as vendor_responses
from pipeline.sandbox.higgsfield.books import VendorBooks
from pipeline.sandbox.higgsfield.gateway import VendorHandlers
from pipeline.sandbox.image_store import PHOTO_ROUTE, UPLOAD_LIMIT_BYTES, UPLOAD_ROUTE, ImageStore
from pipeline.sandbox.job_store import JobStore
from pipeline.sandbox.rendering.renderer import ClipRenderer
from pipeline.sandbox.responses import SandboxResponse
from pipeline.sandbox.settings import SandboxError, SandboxSettings

HOST = "127.0.0.1"
BODY_LIMIT_BYTES = 1024 * 1024

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Sandbox:
    """A local gateway inside the caller's event loop.

    `async with Sandbox(settings) as base_url:` or `start()` and `close()`. The key it accepts is `settings.key`.
    """

    def __init__(self, settings: SandboxSettings, *, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.base_url = ""
        self._now = now
        self._made = asyncio.Event()

    async def __aenter__(self) -> str:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def set_rate(self, rate: str | None) -> None:
        """Change the limit of a running sandbox; the new limiter starts empty-handed."""
        self._gateway.set_rate(rate)

    def callbacks_idle(self) -> bool:
        """Whether no callback is waited for or in flight."""
        return self._gateway.callbacks_idle()

    async def callbacks_done(self) -> None:
        """Wait for the callbacks that are waited for or in flight now."""
        await self._gateway.callbacks_done()

    async def clip_made(self) -> None:
        """Wait until the next clip is made, or cannot be made."""
        self._made.clear()
        await self._made.wait()

    async def start(self) -> str:
        """Open the books, go on with unfinished jobs, listen. Returns the base URL, without a slash at its end.

        Raises:
            SandboxError: the folder is in use by another sandbox, or the configured port is taken.
        """
        folder = self.settings.data_dir
        folder.mkdir(parents=True, exist_ok=True)
        self._images = ImageStore(folder / "images")
        self._renderer = ClipRenderer(folder / "clips", self._images, self.settings)
        self._open_books(folder)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            port = await self._listen(folder / "port")
        except OSError as error:
            await self.close()
            why = "is in use: choose another with --port" if error.errno == errno.EADDRINUSE else "can't be opened"
            raise SandboxError(f"port {self.settings.port} of {HOST} {why}") from error
        self.base_url = f"http://{HOST}:{port}"
        # Behind the listening, because callbacks and clips need the address.
        self._gateway.resume()
        return self.base_url

    def _open_books(self, folder: Path) -> None:
        loop, storm = asyncio.get_running_loop(), self.settings.chaos
        token = None if storm is None else f"storm {storm}"
        shared: dict[str, Any] = {
            "images": self._images,
            "renderer": self._renderer,
            "now": self._now,
            "address": lambda: self.base_url,
            "clip_made": lambda: _call_soon(loop, self._made.set),
        }
        self._books: JobStore | VendorBooks
        self._gateway: SandboxHandlers | VendorHandlers
        if self.settings.kind == "higgsfield":
            self._books = vendor = VendorBooks(folder / "vendor-books.db", token=token)
            self._gateway = VendorHandlers(self.settings, books=vendor, **shared)
        else:
            self._books = jobs = JobStore(folder / "books.db", inline=self.settings.inline, token=token)
            self._gateway = SandboxHandlers(self.settings, books=jobs, **shared)

    async def close(self) -> None:
        """Stop listening, finish the clips being drawn, close the books. Unfinished jobs go on at the next start."""
        await self._gateway.close()
        await self._runner.cleanup()
        # Off the loop: it waits for the clips that are being drawn.
        await asyncio.get_running_loop().run_in_executor(None, self._renderer.close)
        self._books.close()

    async def _listen(self, memory: Path) -> int:
        wanted = self.settings.port
        # The port of the last time: addresses in a ledger, and pages that are open, still lead here after a restart.
        last = _read_port(memory) if wanted == 0 else wanted
        site = web.TCPSite(self._runner, HOST, last)
        try:
            await site.start()
        except OSError:
            if wanted:
                raise
            await web.TCPSite(self._runner, HOST, 0).start()
        port = int(self._runner.addresses[-1][1])
        _write_port(memory, port)
        return port

    def _application(self) -> web.Application:
        is_vendor = self.settings.kind == "higgsfield"
        errors = _library_errors(_vendor_error if is_vendor else _document_error)
        middlewares = [_correlated, errors] if is_vendor else [errors]
        app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=middlewares)
        app.router.add_get(PHOTO_ROUTE + "{name}", self._photo)
        app.router.add_put(UPLOAD_ROUTE + "{digest}", self._store)
        app.router.add_get(UPLOAD_ROUTE + "{digest}", self._uploaded)
        self._gateway.add_routes(app)
        return app

    async def _photo(self, request: web.Request) -> web.StreamResponse:
        photo = self._images.photo(request.match_info["name"])
        return as_json(responses.refused(404, "Photograph not found")) if photo is None else web.FileResponse(photo)

    async def _store(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        if _SHA256.fullmatch(digest) is None:
            return as_json(responses.refused(400, "the address must end with the content's sha256 in lower-case hex"))
        content = bytearray()
        async for block in request.content.iter_any():
            content += block
            if len(content) > UPLOAD_LIMIT_BYTES:
                return as_json(responses.refused(413, f"an image may have at most {UPLOAD_LIMIT_BYTES} bytes"))
        if not self._images.store(digest, bytes(content)):
            return as_json(responses.refused(400, "the content's sha256 is not the one in the address"))
        return as_json(
            SandboxResponse(status=201, value={"image": f"sandbox:sha256-{digest}", "size_bytes": len(content)})
        )

    async def _uploaded(self, request: web.Request) -> web.StreamResponse:
        file = self._images.upload(request.match_info["digest"])
        return as_json(responses.refused(404, "Image not found")) if file is None else web.FileResponse(file)


def _library_errors(
    error_answer: Callable[[web.HTTPException], SandboxResponse],
) -> Middleware:
    """Gives errors of the server library in the form of the API."""

    @web.middleware
    async def in_form(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return as_json(error_answer(error))

    return in_form


def _document_error(error: web.HTTPException) -> SandboxResponse:
    return responses.refused(error.status, responses.NOT_FOUND if error.status == 404 else error.reason)


def _vendor_error(error: web.HTTPException) -> SandboxResponse:
    return vendor_responses.refused(error.status, error.reason)


@web.middleware
async def _correlated(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer of the vendor carries an id for its support."""
    answer = await handler(request)
    answer.headers["X-Correlation-ID"] = str(uuid.uuid4())
    return answer


def _call_soon(loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
    """From a render thread; the loop may be gone when the last clip is done."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(tell)


def _write_port(memory: Path, port: int) -> None:
    memory.write_text(f"{port}\n", encoding="ascii")


def _read_port(memory: Path) -> int:
    try:
        port = int(memory.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
    return port if 1024 <= port <= 65535 else 0
