"""The name under which a study registers its model: by default that of the data set."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipelines.sources.listing import SUFFIXES

if TYPE_CHECKING:
    from tuner.ledger.journal import Record

MAX_LENGTH = 64
# Names that say nothing about a data set; that of the folder above does.
VAGUE = {"audio", "data", "files", "index", "labels", "manifest", "metadata", "tracks", "wav"}


def name_of_data(address: str) -> str:
    """Return a name for a data set: that of its folder, or of its manifest.

    Args:
        address: A folder, a manifest, or a URI of either, without secrets.
    """
    path = PurePosixPath(address.partition("://")[2].partition("?")[0] or address)
    if path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    parts = [part for part in path.parts[::-1] if part not in ("/", "..")] or [address]
    name = next((part for part in parts if part.casefold() not in VAGUE), parts[0])
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:MAX_LENGTH].rstrip("._-")
    digest = hashlib.blake2b(name.encode(errors="replace"), digest_size=3).hexdigest()
    return slug or f"data-{digest}"  # a name in another script has no letter left


def model_name(study: Record) -> str:
    """Return the name of the registered model of a study, given its first record.

    Studies that began with an earlier version registered under their own name.
    """
    return str(study.get("model") or study["study"])
