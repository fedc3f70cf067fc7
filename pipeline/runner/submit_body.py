"""What one submit consists of: the call, and the address and secret under which the gateway may call back."""

from __future__ import annotations

from pipeline.assets.image_urls import ImageUrlResolver
from pipeline.gateway.kinds.interface import Call, Callback, GatewayKind
from pipeline.gateway.redaction import blank_secret
from pipeline.gateway.webhook_tokens import WebhookTokens, callback_url
from pipeline.ledger.transitions import idempotency_key
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


class SubmitCallBuilder:
    """Builds the submits of one run.

    Args:
        kind: what the gateway's calls look like.
        images: without it every image is sent as written; without `callbacks` no one calls.
    """

    def __init__(
        self,
        kind: GatewayKind,
        images: ImageUrlResolver | None = None,
        callbacks: CallbackAddresses | None = None,
    ) -> None:
        self._kind = kind
        self._images = images
        self._callbacks = callbacks

    def build(self, attempt: Attempt, path: str) -> Call:
        """The paid call of an attempt, to one of the kind's submit paths.

        Raises:
            DopError: an image has no address now.
        """
        callbacks = self._callbacks
        return self._kind.submit_call(
            attempt.params,
            idempotency_key=idempotency_key(attempt.request_id, attempt.attempt),
            images=self._images.urls(attempt.params) if self._images is not None else {},
            callback=None
            if callbacks is None
            else Callback(url=callbacks.url(attempt), secret=callbacks.secret(attempt)),
            path=path,
        )

    def without_secrets(self, attempt: Attempt, text: str) -> str:
        """`text` as it may be kept in the ledger."""
        return self._callbacks.without_secrets(attempt, text) if self._callbacks is not None else text
