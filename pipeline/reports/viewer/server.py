"""The server: an unguessable address on 127.0.0.1, and below it runs, money, contact sheets and their news."""

from __future__ import annotations

import asyncio
import errno
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from pipeline.errors import LedgerError, UsageError
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.reports.viewer.access import HEADERS, PAGE_POLICY, SHEET_POLICY, access_refusal, is_token
from pipeline.reports.viewer.kept_zip import kept_clips, send_zip
from pipeline.reports.viewer.live_updates import ClientState, LiveUpdate, live_update
from pipeline.reports.viewer.page_reviews import record_changes
from pipeline.reports.viewer.pages import runs_page, sheet_page, spend_page, style
from pipeline.reports.viewer.thumbnail_cache import ThumbnailCache

HOST = "127.0.0.1"
REFRESH_INTERVAL_S = 1.0
"""How often the ledger is asked for news of a run whose page is open."""

BEATS = 15
"""Ticks without news after which a word is sent all the same: a page that is gone is noticed by it."""

MAX_STREAMS = 32
"""Open pages that are kept up to date at the same time; each holds a connection."""
MAX_BESIDE = 3
"""Runs that a page shows beside its own: with more, no row of a usual screen holds a clip of each."""

TABLES = ("report.csv", "failures.csv", "run.json")
"""Files of a run that are given out, besides its clips and their pictures."""

_CLIP_FILE = re.compile(r"(?![.-])[A-Za-z0-9_.@-]+\.(mp4|jpg)")
"""Names that this program gives to clips and posters; nothing else of the folder is served."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Viewer:
    """One server over one ledger. `start` gives its address; `stop` ends it and every stream."""

    def __init__(self, workspace: OpenLedger, *, reviewer: str) -> None:
        """A server whose pages review under the name of `reviewer`."""
        self._workspace = workspace
        self._reviewer = reviewer
        self._token = secrets.token_urlsafe(24)
        self._port = 0
        self._stopped = asyncio.Event()
        self._stills = ThumbnailCache()
        self._streams = 0
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=2.0)

    async def start(self, port: int = 0) -> str:
        """The address of the list of runs, ending in a slash.

        Raises:
            UsageError: the port is taken or not allowed.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port).start()
        except (OSError, OverflowError) as error:
            await self._runner.cleanup()
            is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is in use" if is_taken else "can't be used"
            raise UsageError(f"port {port} of {HOST} {why}; leave --port out to get a free one") from None
        self._port = int(self._runner.addresses[0][1])
        return f"http://{HOST}:{self._port}/{self._token}/"

    async def stop(self) -> None:
        """Ends every stream and closes the port."""
        self._stopped.set()
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded], client_max_size=8_000_000)
        app.add_routes(
            [
                web.get("/{token}/", self._runs),
                web.get("/{token}/spend", self._spend),
                web.get("/{token}/view.css", self._style),
                web.get("/{token}/runs/{run}/", self._sheet),
                web.get("/{token}/runs/{run}/events", self._events, allow_head=False),
                web.post("/{token}/runs/{run}/reviews", self._save_reviews),
                web.get("/{token}/runs/{run}/videos/{name}", self._clip),
                web.get("/{token}/runs/{run}/kept.zip", self._kept),
                web.get("/{token}/runs/{run}/{name}", self._table),
            ]
        )
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Asks the guard before anything is looked up, and puts the usual headers on every answer."""
        # Before the token: a page of another site that guesses addresses learns nothing of them, not even by 404.
        why = access_refusal(request.method, request.headers, self._port)
        answer: web.StreamResponse
        if why is not None:
            answer = web.Response(status=403, text=f"{why}\n")
        elif not is_token(request.match_info.get("token", ""), self._token):
            answer = web.Response(status=404, text="not found\n")
        else:
            try:
                answer = await handler(request)
            except web.HTTPException as refused:
                answer = web.Response(status=refused.status, text=f"{refused.text}\n")
            except UsageError as error:
                answer = web.Response(status=400, text=f"{error}\n")
            except LedgerError as error:
                answer = web.Response(status=503, text=f"{error}\n")
        if not answer.prepared:
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
            # `setdefault`, because the sheet's page has scripts and a policy of its own.
            answer.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        return answer

    async def _runs(self, _: web.Request) -> web.Response:
        return _html(await asyncio.to_thread(runs_page, self._workspace))

    async def _spend(self, _: web.Request) -> web.Response:
        return _html(await asyncio.to_thread(spend_page, self._workspace))

    async def _style(self, _: web.Request) -> web.Response:
        return web.Response(text=style(), content_type="text/css", charset="utf-8")

    async def _sheet(self, request: web.Request) -> web.Response:
        run, *beside = await self._runs_of(request)
        page = _html(await asyncio.to_thread(sheet_page, self._workspace, run, reviewer=self._reviewer, beside=beside))
        page.headers["Content-Security-Policy"] = SHEET_POLICY
        return page

    async def _run(self, request: web.Request) -> Run:
        """The run of the address, by its whole name.

        Raises:
            HTTPNotFound: the ledger has none of that name.
        """
        run = await asyncio.to_thread(self._workspace.queries.run, request.match_info["run"])
        if run is None:
            raise web.HTTPNotFound(text="no such run")
        return run

    async def _runs_of(self, request: web.Request) -> list[Run]:
        """The run of the address, and those that `with=RUN` names beside it.

        Raises:
            HTTPNotFound: the ledger has none of that name.
        """
        named = dict.fromkeys(request.query.getall("with", []))
        beside = [await asyncio.to_thread(self._workspace.queries.run, name) for name in list(named)[:MAX_BESIDE]]
        if None in beside:
            raise web.HTTPNotFound(text="no such run")
        run = await self._run(request)
        return [run, *(other for other in beside if other is not None and other.run_id != run.run_id)]

    # -- files

    async def _kept(self, request: web.Request) -> web.StreamResponse:
        """The kept clips as one ZIP."""
        runs = await self._runs_of(request)
        files = await asyncio.to_thread(kept_clips, self._workspace, runs)
        ours = {name: path for name, path in files.items() if self._is_ours(path)}
        return await send_zip(request, f"{runs[0].run_id}-kept.zip", ours)

    async def _clip(self, request: web.Request) -> web.StreamResponse:
        """A clip, with ranges, or a picture of it, made now if there is none."""
        run, name = await self._run(request), request.match_info["name"]
        if not _CLIP_FILE.fullmatch(name):
            raise web.HTTPNotFound(text="no such file")
        path = self._workspace.outputs / run.run_id / "videos" / name
        if await asyncio.to_thread(self._is_ours, path):
            # `no-cache` asks each time and is answered 304: a clip that was downloaded again has the same name.
            return web.FileResponse(path, headers={"Cache-Control": "private, no-cache"})
        picture = await self._stills.picture(path) if name.endswith(".jpg") else None
        if picture is None:
            raise web.HTTPNotFound(text="no such file")
        return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "private, no-cache"})

    async def _table(self, request: web.Request) -> web.StreamResponse:
        run, name = await self._run(request), request.match_info["name"]
        path = self._workspace.outputs / run.run_id / name
        if name not in TABLES or not await asyncio.to_thread(self._is_ours, path):
            raise web.HTTPNotFound(text="no such file")
        return web.FileResponse(path)

    def _is_ours(self, path: Path) -> bool:
        """Whether it is a file, and is in the outputs folder also when links are followed."""
        return path.is_file() and path.resolve().is_relative_to(self._workspace.outputs.resolve())

    # -- reviews

    async def _save_reviews(self, request: web.Request) -> web.Response:
        """Adds a page's changes to the ledger; when it answers, they are on the disk."""
        runs = await self._runs_of(request)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="reviews are JSON")
        try:
            content = json.loads((await request.read()).decode("utf-8"))
        except (ValueError, RecursionError):
            raise web.HTTPBadRequest(text="reviews are JSON in UTF-8") from None
        if not isinstance(content, dict):
            raise web.HTTPBadRequest(text='reviews are {"changes": [...]}')
        saved = await asyncio.to_thread(
            record_changes, self._workspace, runs, content.get("changes"), who=self._reviewer
        )
        return web.json_response({"saved": saved})

    # -- news

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `status`, `cells`, `reviews` and `stale`, with the number of the last event as id."""
        run, *beside = await self._runs_of(request)
        seen = _seen(request)
        if self._streams >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(text="too many pages are open")
        headers = {**HEADERS, "Content-Type": "text/event-stream", "Content-Security-Policy": PAGE_POLICY}
        stream = web.StreamResponse(headers=headers)
        # Counted before the first await, or as many as come together would all pass the check.
        self._streams += 1
        try:
            await stream.prepare(request)
            await self._stream_updates(stream, [run.run_id, *(other.run_id for other in beside)], seen)
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._streams -= 1
        return stream

    async def _stream_updates(self, stream: web.StreamResponse, run_ids: Sequence[str], seen: ClientState) -> None:
        quiet = 0
        while not self._stopped.is_set():
            found = await asyncio.to_thread(live_update, self._workspace, run_ids, seen)
            seen = found.seen
            text = _as_events(found)
            quiet = 0 if text else quiet + 1
            if text or quiet % BEATS == 0:
                await stream.write((text or ": nothing new\n\n").encode())
            await self._pause()

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stopped.wait(), REFRESH_INTERVAL_S)
        except TimeoutError:
            return


def _html(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/html", charset="utf-8")


def _seen(request: web.Request) -> ClientState:
    """The page's position: what it was loaded with, or the last event it received before the connection broke."""
    after = request.headers.get("Last-Event-ID") or request.query.get("after", "")
    requests = request.query.get("requests", "")
    if not _is_number(after):
        raise web.HTTPBadRequest(text="after=NUMBER says what is known")
    reviews = request.query.get("reviews", "")
    seen = ClientState(event=int(after), reviews=int(reviews) if _is_number(reviews) else 0)
    return replace(seen, requests=int(requests)) if _is_number(requests) else seen


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _as_events(found: LiveUpdate) -> str:
    """The news as lines of the stream; JSON has no line breaks of its own."""
    events: list[tuple[str, object]] = []
    if found.cells:
        events.append(("cells", found.cells))
    if found.status is not None:
        events.append(("status", found.status))
    if found.reviews:
        events.append(("reviews", {"number": found.seen.reviews, "changes": found.reviews}))
    if found.is_stale:
        events.append(("stale", None))
    return "".join(f"id: {found.seen.event}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
