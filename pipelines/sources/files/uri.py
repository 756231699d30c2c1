"""File-system URIs: what they stand for, and how they may be shown."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pipelines.sources.tracks import printable

# Options of a URI that say where the storage is, and not who asks.
_SAFE_OPTIONS = frozenset({"endpoint_override", "scheme", "region", "allow_bucket_creation"})


def is_uri(source: str) -> bool:
    """Whether a source is a file-system URI and not a path."""
    scheme, mark, _ = source.partition("://")
    return bool(mark) and scheme.isascii() and scheme.replace("+", "").isalnum()


def local_path(uri: str) -> str | None:
    """The path that a `file://` URI stands for; None for others."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else None


def split_uri(uri: str) -> tuple[str, str]:
    """A URI to that of its folder and the name of its last part."""
    parts = urlsplit(uri)
    folder, _, name = parts.path.rstrip("/").rpartition("/")
    return urlunsplit(parts._replace(path=folder)), unquote(name)


def quoted(uri: str) -> str:
    """A URI as a person writes it to one that a parser takes: spaces and Unicode escaped."""
    return quote(uri, safe="%:/?#[]@!$&'()*+,;=~")


def printable_root(root: str) -> str:
    """A root that may be shown and written down: a URI without its user, password and keys."""
    if not is_uri(root):
        return printable(root)
    parts = urlsplit(root)
    host = parts.netloc.rpartition("@")[2]
    options = [pair for pair in parts.query.split("&") if pair.partition("=")[0] in _SAFE_OPTIONS]
    shown = urlunsplit((parts.scheme, host, parts.path, "&".join(options), ""))
    return printable(shown)


def printable_file(root: str, path: str) -> str:
    """A file below a root as it may be shown: without the options of a URI."""
    place = printable_root(root).partition("?")[0] if is_uri(root) else printable(root)
    return f"{place}/{printable(path)}"
