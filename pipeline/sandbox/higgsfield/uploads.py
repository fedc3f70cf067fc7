"""Uploads of the vendor sandbox: an address to upload one file to, and the one under which it is read then."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable

from aiohttp import web

from pipeline.sandbox.fault_injection import as_json
from pipeline.sandbox.higgsfield import rules
from pipeline.sandbox.higgsfield.books import VendorBooks
from pipeline.sandbox.higgsfield.responses import refused
from pipeline.sandbox.higgsfield.rules import InvalidCallError
from pipeline.sandbox.image_store import UPLOAD_LIMIT_BYTES, UPLOAD_ROUTE, ImageStore
from pipeline.sandbox.responses import SandboxResponse

UPLOAD_PATH, FILE_PATH = "/_sandbox/uploads/", "/_sandbox/files/"
UPLOAD_TYPES = frozenset(
    ["image/jpeg", "image/jpg", "image/png", "image/webp", "image/gif", "audio/wav", "audio/x-wav", "video/mp4"]
)


class UploadHandlers:
    """The uploads of one sandbox. `refusal_of` says what is wrong with a call's key."""

    def __init__(
        self,
        books: VendorBooks,
        images: ImageStore,
        *,
        address: Callable[[], str],
        refusal_of: Callable[[web.Request], SandboxResponse | None],
    ) -> None:
        self._books, self._images, self._address, self._refusal_of = books, images, address, refusal_of

    def add_routes(self, app: web.Application) -> None:
        """Everything that is served."""
        app.router.add_post("/files/generate-upload-url", self.new_upload)
        app.router.add_put(UPLOAD_PATH + "{token}", self.put_upload)
        app.router.add_get(FILE_PATH + "{name}", self.file)

    def own_picture(self, image: object) -> object:
        """The address of a picture that was uploaded here, as the renderer finds it; any other one unchanged."""
        prefix = f"{self._address()}{FILE_PATH}"
        if not isinstance(image, str) or not image.startswith(prefix):
            return image
        known = self._books.upload(image.removeprefix(prefix).partition(".")[0])
        return f"{self._address()}{UPLOAD_ROUTE}{known[1]}" if known is not None and known[1] is not None else image

    async def new_upload(self, request: web.Request) -> web.StreamResponse:
        """POST: an address to upload one file to, and the one to read it at."""
        refusal = self._refusal_of(request)
        if refusal is not None:
            return as_json(refusal)
        try:
            wanted = rules.read_body(await request.read()).get("content_type")
        except InvalidCallError as error:
            return as_json(refused(422, error.detail))
        if not isinstance(wanted, str) or wanted not in UPLOAD_TYPES:
            return as_json(refused(422, "Unsupported content type"))
        token = uuid.uuid4().hex
        self._books.new_upload(token, wanted)
        ending = wanted.rpartition("/")[2]
        value = {
            "public_url": f"{self._address()}{FILE_PATH}{token}.{ending}",
            "upload_url": f"{self._address()}{UPLOAD_PATH}{token}",
            "content_type": wanted,
            "upload_headers": {"Content-Type": wanted, "x-amz-tagging": "retention=temporary"},
        }
        return as_json(SandboxResponse(status=200, value=value))

    async def put_upload(self, request: web.Request) -> web.StreamResponse:
        """PUT of a file, as a store takes it: with the headers that were given, and without the vendor's key."""
        known = self._books.upload(request.match_info["token"])
        if known is None:
            return web.Response(status=404)
        wrong_type = request.headers.get("Content-Type") != known[0]
        if "Authorization" in request.headers or wrong_type or "x-amz-tagging" not in request.headers:
            return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")
        content = bytearray()
        async for block in request.content.iter_any():
            content += block
            if len(content) > UPLOAD_LIMIT_BYTES:
                return web.Response(status=413)
        digest = hashlib.sha256(content).hexdigest()
        self._images.store(digest, bytes(content))
        self._books.uploaded(request.match_info["token"], digest)
        return web.Response(status=200)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """GET of an uploaded file."""
        known = self._books.upload(request.match_info["name"].partition(".")[0])
        found = self._images.upload(known[1]) if known is not None and known[1] is not None else None
        return web.Response(status=404) if found is None else web.FileResponse(found)
