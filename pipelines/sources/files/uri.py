"""File-system URIs: their parts, and how to show them without secrets."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pipelines.sources.tracks import printable

# Options of a URI that address the storage and hold no secret.
_SAFE_OPTIONS = frozenset({"endpoint_override", "scheme", "region", "allow_bucket_creation"})


def is_uri(source: str) -> bool:
    """Return True if a source is a file-system URI and not a path."""
    scheme, mark, _ = source.partition("://")
    return bool(mark) and scheme.isascii() and scheme.replace("+", "").isalnum()


def local_path(uri: str) -> str | None:
    """Return the path of a ``file://`` URI; None for other URIs."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else None


def split_uri(uri: str) -> tuple[str, str]:
    """Split a URI into that of its folder and the name of its last part."""
    parts = urlsplit(uri)
    folder, _, name = parts.path.rstrip("/").rpartition("/")
    return urlunsplit(parts._replace(path=folder)), unquote(name)


def quoted(uri: str) -> str:
    """Escape spaces and Unicode in a URI that a person wrote."""
    return quote(uri, safe="%:/?#[]@!$&'()*+,;=~")


def printable_root(root: str) -> str:
    """Return a root that may be shown and stored: a URI without user, password and keys."""
    if not is_uri(root):
        return printable(root)
    parts = urlsplit(root)
    host = parts.netloc.rpartition("@")[2]
    options = [pair for pair in parts.query.split("&") if pair.partition("=")[0] in _SAFE_OPTIONS]
    shown = urlunsplit((parts.scheme, host, parts.path, "&".join(options), ""))
    return printable(shown)


def printable_file(root: str, path: str) -> str:
    """Return the address of a file that may be shown: without the options of a URI."""
    place = printable_root(root).partition("?")[0] if is_uri(root) else printable(root)
    return f"{place}/{printable(path)}"
