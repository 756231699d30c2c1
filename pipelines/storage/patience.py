"""How long a store that is away is asked again, and why it is away, in words."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from pipelines.plain_text import shorten

REQUEST_SECONDS = 300.0
SECONDS = 900.0
"""How long a store may be away before work that depends on it ends."""
_MAX_PAUSE_SECONDS = 30.0
QUIET_SECONDS = 10.0
"""How long trouble lasts before a person hears about it."""


def pauses() -> Iterator[float]:
    """Yield seconds to wait: doubled each time, and by chance, so that many do not ask at once."""
    pause = 0.5
    while True:
        yield pause * random.uniform(0.75, 1.25)
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)


# Words of the stores and their client -> words for the user.
_WORDS = {
    "NoSuchBucket": "there is no such bucket",
    "ContainerNotFound": "there is no such container",
    "SlowDown": "it asks for fewer requests",
    "ExpiredToken": "the keys have ended",
    "InvalidAccessKeyId": "the key is unknown",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "AccessDenied": "access is denied",
    "AuthenticationFailed": "the keys are refused",
    "AuthorizationFailure": "the account's network rules refuse this machine",
    "KeyBasedAuthenticationNotPermitted": "the account takes roles, and no keys",
    "AccountIsDisabled": "the account is disabled",
    "Account must be specified": "AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING "
    "is not set",
    "instance/service-accounts": "GOOGLE_APPLICATION_CREDENTIALS is not set, and this machine has "
    "no role",
    "metadata/identity": "AZURE_STORAGE_ACCOUNT_KEY is not set, and this machine has no role",
    "ServerBusy": "it asks for fewer requests",
    "error sending request": "it does not answer",
    "operation timed out": "it does not answer in time",
}


def _code(error: Exception) -> str:
    """Return what the store calls an error; empty if it does not say. Objects may be called so."""
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found[1] if found else ""


def is_bucket_gone(error: Exception) -> bool:
    """Return True if there is no such bucket, which stores answer as they do a missing object."""
    return _code(error) in ("NoSuchBucket", "ContainerNotFound")


def is_about_object(error: Exception) -> bool:
    """Return True if one object may not be read, False if the keys are refused for all.

    A role that is taken away answers as an object that it may not read.
    """
    return _code(error) in ("AccessDenied", "AuthorizationPermissionMismatch")


def reason(error: Exception) -> str:
    """Return why a request failed in a few words."""
    text = str(error)
    for word, said in _WORDS.items():
        if word in (_code(error) or text):
            return said
    if found := re.search(r"non-2xx status code: (\d{3})", text):
        return f"it answers with HTTP status {found[1]}"
    return shorten(" ".join(text.partition("Debug source")[0].split()), 200)
