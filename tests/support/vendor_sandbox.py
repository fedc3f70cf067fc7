"""The vendor's sandbox in a thread of its own, for tests that call the command."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.sandbox.faults import FaultPlan
from pipeline.sandbox.higgsfield.books import VendorBooks
from pipeline.sandbox.higgsfield.gateway import VendorHandlers

T = TypeVar("T")
KEY_ID, KEY_SECRET = "vendor-id-0123456789", "vendor-secret-0123456789"


class VendorSandbox:
    """`with VendorSandbox(folder) as vendor`: serves until the end."""

    def __init__(self, folder: Path, **options: Any) -> None:
        given = {"one_clip": True, "size": "180p", "generation_s": 0.3, **options}
        self._settings = SandboxSettings(data_dir=folder, kind="higgsfield", key=f"{KEY_ID}:{KEY_SECRET}", **given)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.base_url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._sandbox = self._do(self._made())
        self.base_url = self._do(self._sandbox.start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._sandbox.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _made(self) -> Sandbox:
        return Sandbox(self._settings)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @property
    def environment(self) -> dict[str, str]:
        """What points the command at this sandbox."""
        return {
            "DOP_GATEWAY__KIND": "higgsfield",
            "DOP_GATEWAY__BASE_URL": self.base_url,
            "HF_API_KEY_ID": KEY_ID,
            "HF_API_KEY_SECRET": KEY_SECRET,
        }

    @property
    def handlers(self) -> VendorHandlers:
        """The paid side."""
        handlers = self._sandbox._gateway
        assert isinstance(handlers, VendorHandlers)
        return handlers

    @property
    def books(self) -> VendorBooks:
        """What was accepted."""
        books = self._sandbox._books
        assert isinstance(books, VendorBooks)
        return books

    def script(self, plan: FaultPlan) -> None:
        """Let go wrong what `plan` says, from now on."""
        self._loop.call_soon_threadsafe(self.handlers.script, plan)
