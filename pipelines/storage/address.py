"""Addresses of object stores, and the clients that they lead to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from pipelines.errors import UnsupportedStorageError
from pipelines.plain_text import printable

SCHEMES = frozenset({"s3", "gs", "abfs", "abfss"})
# The options that pyarrow's addresses of S3 have and that hold no secret.
_OPTIONS = {"s3": {"endpoint_override", "scheme", "region"}, "gs": set[str]()}
_OPTIONS_OF_AZURE = {"endpoint_override", "scheme"}
_AZURE_HOST = ".dfs.core.windows.net"
# A request that fails is repeated by `pipelines.storage.objects`, which says so.
_RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}


@dataclass(frozen=True, order=True)
class Place:
    """A bucket, and what is needed to reach it; never a secret.

    Attributes:
        scheme: One of ``SCHEMES``.
        bucket: Name of the bucket; of a container in Azure.
        host: Host of an Azure account, as the address names it; empty if the environment does.
        options: Options of the address, sorted.
    """

    scheme: str
    bucket: str
    host: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def address(self, key: str) -> str:
        """Return the address of a key, which ``parse`` reads."""
        login = f"{self.bucket}@{self.host}" if self.host else self.bucket
        shown = f"{self.scheme}://{login}/{quote(key, safe=_PLAIN)}".rstrip("/")
        return shown + "?" * bool(self.options) + urlencode(self.options, safe="/:")


_PLAIN = "/!$&'()*+,;=:@-._~ "


def split(address: str) -> SplitResult:
    """Split an address into its parts.

    Raises:
        UnsupportedStorageError: It is malformed, or ends in a fragment, which would be lost.
    """
    shown = printable(address).partition("?")[0]
    try:
        parts = urlsplit(address)
    except ValueError:  # whose text quotes the login
        raise UnsupportedStorageError(shown, "not a valid address") from None
    if "#" in address:
        raise UnsupportedStorageError(shown, "a # in a name is written %23")
    return parts


def parse(address: str) -> tuple[Place, str]:
    """Split an address into a bucket and a key.

    Raises:
        UnsupportedStorageError: No object store has such an address, or it holds a secret, which
            would be handed to every process of a cluster.
    """
    shown, parts = printable(address), split(address)
    bucket, _, host = parts.netloc.rpartition("@")
    if parts.scheme.startswith("abfs") and bucket and host.endswith(_AZURE_HOST):
        place = Place(parts.scheme, bucket, host)
    else:
        if bucket:
            raise UnsupportedStorageError(shown, _keys_of(parts.scheme))
        place = Place(parts.scheme, host)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    allowed = _OPTIONS.get(place.scheme, _OPTIONS_OF_AZURE)
    if unknown := sorted(options.keys() - allowed):
        known = ", ".join(sorted(allowed)) or "none"
        raise UnsupportedStorageError(
            shown, f"its options may be {known}, not {', '.join(unknown)}"
        )
    if any("@" in value for value in options.values()):
        raise UnsupportedStorageError(shown, "no login may be in it")
    if place.scheme not in SCHEMES or not place.bucket:
        raise UnsupportedStorageError(shown)
    found = Place(place.scheme, place.bucket, place.host, tuple(sorted(options.items())))
    return found, "/".join(part for part in unquote(parts.path).split("/") if part)


def _keys_of(scheme: str) -> str:
    names = {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS or a role",
    }
    other = (
        "AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT_NAME and "
        "AZURE_STORAGE_ACCOUNT_KEY, or a role"
    )
    known = names.get(scheme, other)
    return f"keys come from the environment ({known}), never from an address"


def connect(place: Place, request_seconds: float, retries: Any = None) -> Any:
    """Return a client of a bucket, with what the environment knows.

    Args:
        place: The bucket.
        request_seconds: How long a request may take; short ones are not repeated.
        retries: How the client repeats one that fails, if nobody else does.

    Raises:
        UnsupportedStorageError: A package is missing that reads the credentials.
    """
    make = {"s3": _s3, "gs": _gs}.get(place.scheme, _azure)
    client = {"connect_timeout": "5s", "timeout": f"{request_seconds:.1f}s"}
    is_short = request_seconds <= _SHORT_SECONDS
    retries = retries or ({**_RETRIES, "max_retries": 0} if is_short else _RETRIES)
    return make(place, dict(place.options), client, retries)


_SHORT_SECONDS = 10.0


def _s3(place: Place, options: dict[str, str], client: Any, retries: Any) -> Any:
    from obstore.store import S3Store

    env = os.environ
    endpoint = options.get("endpoint_override") or env.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or env.get("AWS_ENDPOINT_URL")
    config: Any = {}
    if endpoint:
        if "://" not in endpoint:
            endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
        config |= {"endpoint": endpoint.rstrip("/"), "virtual_hosted_style_request": False}
    region = options.get("region") or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    config["region"] = region or ("us-east-1" if endpoint else _region_of(place.bucket))
    given = _profile(place) if _has_profile() else None
    is_open = (endpoint or "").startswith("http://")
    return S3Store(
        place.bucket, config=config, credential_provider=given, retry_config=retries,
        client_options=client | {"allow_http": is_open},
    )  # fmt: skip


def _region_of(bucket: str) -> str:
    import pyarrow.fs

    try:
        return str(pyarrow.fs.resolve_s3_region(bucket))
    except OSError:  # the first request says what is wrong
        return "us-east-1"


def _has_profile() -> bool:
    """Return True if a person's profile holds the keys, and not the environment or a role."""
    env = os.environ
    if env.get("AWS_ACCESS_KEY_ID") or env.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return False
    files = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
    homes = (Path(env.get(name) or Path.home() / ".aws" / file) for name, file in files.items())
    return bool(env.get("AWS_PROFILE")) or any(path.is_file() for path in homes)


def _profile(place: Place) -> Any:
    try:
        import boto3  # type: ignore[import-untyped]
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        raise UnsupportedStorageError(
            place.address(""), "its keys are in a profile of AWS; pip install boto3"
        ) from None
    session = boto3.Session()
    return Boto3CredentialProvider(session) if session.get_credentials() else None


def _gs(place: Place, _options: dict[str, str], client: Any, retries: Any) -> Any:
    from obstore.store import GCSStore

    endpoint, config = os.environ.get("GOOGLE_BASE_URL", ""), dict[str, Any]()
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):  # which asks for no keys
        endpoint = emulator if "://" in emulator else f"http://{emulator}"
        config = {"base_url": endpoint.rstrip("/"), "bearer_token": "none"}
    return GCSStore(
        place.bucket, config=cast("Any", config), retry_config=retries,
        client_options=client | {"allow_http": endpoint.startswith("http://")},
    )  # fmt: skip


def _azure(place: Place, _options: dict[str, str], client: Any, retries: Any) -> Any:
    from obstore.store import AzureStore

    config: Any = _azure_login(place)
    is_open = config.get("endpoint", "").startswith("http://")
    return AzureStore(
        place.bucket, config=config, retry_config=retries,
        client_options=client | {"allow_http": is_open},
    )  # fmt: skip


def _azure_login(place: Place) -> dict[str, str]:
    """Return what an address and the environment say of an account of Azure.

    Returns:
        account_name, account_key, sas_key and endpoint, without what nothing says.
    """
    env, options = os.environ, dict(place.options)
    account = place.host.removesuffix(_AZURE_HOST) or env.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    found = {
        "account_name": account,
        "account_key": env.get("AZURE_STORAGE_ACCOUNT_KEY", ""),
        "sas_key": env.get("AZURE_STORAGE_SAS_TOKEN", ""),
    } | _of_connection_string(account)
    endpoint = options.get("endpoint_override") or env.get("AZURE_STORAGE_ENDPOINT")
    if endpoint:
        scheme = options.get("scheme", "https")
        found["endpoint"] = endpoint if "://" in endpoint else f"{scheme}://{endpoint}"
    return {name: value for name, value in found.items() if value}


def _of_connection_string(wanted: str) -> dict[str, str]:
    """Return what ``AZURE_STORAGE_CONNECTION_STRING`` says, which the client does not read.

    Args:
        wanted: Name of the account; a string of another one is ignored. Empty for any.
    """
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    given = dict(part.strip().split("=", 1) for part in text.split(";") if "=" in part)
    endpoint = given.get("BlobEndpoint", "").rstrip("/")
    # A string with a signature instead of a key may lack the name.
    account = given.get("AccountName") or (urlsplit(endpoint).hostname or "").partition(".")[0]
    if not account or wanted not in ("", account):
        return {}
    suffix = given.get("EndpointSuffix", "core.windows.net")
    protocol = given.get("DefaultEndpointsProtocol", "https")
    endpoint = endpoint or f"{protocol}://{account}.blob.{suffix}"
    keys = {"account_key": "AccountKey", "sas_key": "SharedAccessSignature"}
    config = {name: given[part] for name, part in keys.items() if part in given}
    return {"account_name": account, "endpoint": endpoint, **config}
