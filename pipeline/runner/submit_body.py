"""What one submit consists of: the JSON body, and the address and secret under which the gateway may call back."""

from __future__ import annotations

from pipeline.assets.image_urls import ImageUrlResolver
from pipeline.gateway.redaction import blank_secret
from pipeline.gateway.webhook_tokens import WebhookTokens, callback_url
from pipeline.gateway.wire import submit_body
from pipeline.records import Attempt


class CallbackAddresses:
    """The callback address of each attempt. `public_url` is what the gateway can reach; the token is put behind it."""

    def __init__(self, keys: WebhookTokens, public_url: str) -> None:
        self.keys = keys
        self._public_url = public_url

    def url(self, attempt: Attempt) -> str:
        """The attempt's own callback address."""
        return callback_url(self._public_url, self.keys.token(attempt.request_id, attempt.attempt))

    def secret(self, attempt: Attempt) -> str:
        """The attempt's own secret."""
        return self.keys.secret(attempt.request_id, attempt.attempt)

    def without_secrets(self, attempt: Attempt, text: str) -> str:
        """`text` without the attempt's token and secret: a gateway may repeat them in its response."""
        token = self.keys.token(attempt.request_id, attempt.attempt)
        return blank_secret(blank_secret(text, token), self.secret(attempt))


class SubmitBodyBuilder:
    """Builds submits of one run. Without `images` every image is sent as written, without `callbacks` no one calls."""

    def __init__(self, images: ImageUrlResolver | None = None, callbacks: CallbackAddresses | None = None) -> None:
        self._images = images
        self._callbacks = callbacks

    def build(self, attempt: Attempt) -> bytes:
        """The body of an attempt's POST.

        Raises:
            DopError: an image has no address now.
        """
        urls = self._images.urls(attempt.params) if self._images is not None else {}
        if self._callbacks is None:
            return submit_body(attempt.params, images=urls)
        url, secret = self._callbacks.url(attempt), self._callbacks.secret(attempt)
        return submit_body(attempt.params, images=urls, webhook_url=url, webhook_secret=secret)

    def callback_url(self, attempt: Attempt) -> str | None:
        """The address for the queue dialect's header.

        API: which dialect answers is known from the response only, so the header goes along with the fields.
        """
        return self._callbacks.url(attempt) if self._callbacks is not None else None

    def without_secrets(self, attempt: Attempt, text: str) -> str:
        """`text` as it may be kept in the ledger."""
        return self._callbacks.without_secrets(attempt, text) if self._callbacks is not None else text
