"""Which requests can be bought again as what they were: the same content under the same identity. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.assets.addresses import file_sha256, is_local, is_object
from pipeline.assets.object_checks import known_objects
from pipeline.config.settings import Settings
from pipeline.records import Attempt, request_key


@dataclass(slots=True, kw_only=True)
class SameContent:
    """Attempts whose pictures are as they were when the request was made, and those whose are not.

    Attributes:
        sha256_of: the sha256 of each local picture or object of a store, by the name that the request uses.
        changed: each attempt left out, with the reason in words.
    """

    attempts: list[Attempt] = field(default_factory=list)
    sha256_of: dict[str, str] = field(default_factory=dict)
    changed: list[tuple[Attempt, str]] = field(default_factory=list)


def same_content(attempts: Iterable[Attempt], settings: Settings) -> SameContent:
    """Compare each attempt's pictures with its identity. Reads local files.

    MONEY: the request id is a hash over the pictures' content. Sending another picture under an old id would buy what
    was not agreed, and the ledger would say that it is the old one.
    """
    found = SameContent()
    object_sha256 = known_objects(settings)
    for attempt in attempts:
        params = attempt.params
        images = dict.fromkeys((*params.input_images, *params.input_images_end))
        try:
            for image in images:
                if image in found.sha256_of:
                    continue
                if is_local(image):
                    found.sha256_of[image] = file_sha256(Path(image))
                elif is_object(image) and object_sha256 is not None and (sha256 := object_sha256(image)):
                    found.sha256_of[image] = sha256
        except OSError as error:
            found.changed.append((attempt, f"{image} can't be read ({error.strerror or error})"))
            continue
        keys = {image: f"sha256:{found.sha256_of[image]}" for image in images if image in found.sha256_of}
        if request_key(params, take=attempt.take, gateway=attempt.gateway, image_keys=keys) == attempt.request_id:
            found.attempts.append(attempt)
        else:
            # An object that was never checked has no hash and so another key: it is left out as well.
            found.changed.append((attempt, f"{', '.join(keys) or 'its picture'} changed since the row was listed"))
    return found
