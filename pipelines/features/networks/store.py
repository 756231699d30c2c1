"""Weights of the networks in this node's cache, fetched and converted once, and files of users.

A network is one safetensors file. Its metadata says which row of the table it belongs to, and
where the weights come from. Reading one never runs code.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors

from pipelines.errors import WeightsError
from pipelines.features.networks import NETWORKS, Network, Provenance, is_file, named
from pipelines.plain_text import shorten
from pipelines.regular_files import expect_file
from pipelines.storage import Folder, cache_folder
from pipelines.weights import content_digest, load_into, read_weights

if TYPE_CHECKING:
    import torch

LOCK_TIMEOUT_SECONDS = 1800.0
"""Longest wait for another process that fetches."""
_DIGEST_DIGITS = 16
_NAME = "network"  # key of the metadata


def cached_file(network: Network) -> Path:
    """Return where this node's cache keeps the weights, whether they are there or not."""
    return cache_folder() / "networks" / f"{network.name}.safetensors"


def find(network: Network) -> Path | None:
    """Return the file in this node's cache; None if it is missing, damaged or changed."""
    file = cached_file(network)
    try:
        return file if content_digest(file.read_bytes()) == network.digest else None
    except (OSError, safetensors.SafetensorError):
        return None


def weights_file(network: Network, say: Callable[[str], object] | None = None) -> Path:
    """Return the file with the weights of a network, after fetching them if they are not here.

    All networks of the same source are converted at once. Of several processes one fetches.

    Args:
        network: The network.
        say: Called with one line before something is fetched.

    Raises:
        WeightsError: The weights cannot be fetched; says why, and two remedies.
        StorageFullError: No room left in the cache.
    """
    if file := find(network):
        return file
    folder = Folder(cached_file(network).parent)
    lock = f"{network.source.sha256[:_DIGEST_DIGITS]}.lock"
    try:
        with folder.lock(lock, LOCK_TIMEOUT_SECONDS):
            if find(network) is None:
                _fetch(network, folder, say)
    except OSError as error:  # also the timeout of the lock
        raise WeightsError(
            f"{network.name}: the cache {folder} cannot be used: {error.strerror or error}; "
            "set TUNER_CACHE to a folder that can be written"
        ) from error
    return cached_file(network)


def missing() -> dict[str, str]:
    """Return the networks that are neither cached nor on the index, each with the reason."""
    from pipelines.features.networks.fetch import obstacle

    absent = [row for row in NETWORKS.values() if find(row) is None]
    obstacles = {one: obstacle(one) for one in dict.fromkeys(row.source for row in absent)}
    return {row.name: why for row in absent if (why := obstacles[row.source])}


def remedies(network: Network) -> str:
    """Return what to do if the weights of a network cannot be fetched."""
    return (
        f"run `python -m tuner.weights fetch {network.name}` on a machine that can fetch it and "
        f"copy the file that it names to {cached_file(network)}, or do without: `weights: null` "
        "for a model, another kind of features than `embedding`"
    )


def network_of(source: str) -> Network:
    """Return the row of a network by name, or of a file of weights by its metadata.

    Raises:
        SpecError: There is no such network; suggests names.
        WeightsError: The file cannot be read, or belongs to no network.
    """
    if not is_file(source):
        return named(source)
    name = _metadata(Path(source).expanduser()).get(_NAME)
    if name not in NETWORKS:
        raise WeightsError(
            f"{source}: its metadata must say `{_NAME}`: one of {', '.join(NETWORKS)}; got "
            f"{name and shorten(name)!r}"
        )
    return NETWORKS[name]


def provenance_of_file(path: str) -> Provenance:
    """Return what the weights of a user's file were trained on.

    It is known if the content is that of a network; nothing else in a file can be believed.
    """
    try:
        # os.path refuses nothing; pathlib raises for an unknown user.
        content = expect_file(Path(os.path.expanduser(path))).read_bytes()  # noqa: PTH111
        digest = content_digest(content)
    except (OSError, ValueError, safetensors.SafetensorError):  # a NUL byte in the path
        digest = ""
    for network in NETWORKS.values():
        if network.digest == digest:
            return network.provenance._replace(name=f"{path} ({network.name})")
    return Provenance(path, "data that is not known here")


def identity(source: str) -> str:
    """Return what distinguishes the weights of a source from all others, for fingerprints.

    Args:
        source: Name of a network, or path of a safetensors file.

    Returns:
        For a name, the name with the first 16 digits of its source's SHA-256; for a file, its
        SHA-256.

    Raises:
        SpecError: There is no such network.
        WeightsError: The file cannot be read.
    """
    if not is_file(source):
        return f"{source}@{named(source).source.sha256[:_DIGEST_DIGITS]}"
    try:
        with expect_file(Path(source).expanduser()).open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{source}: cannot be read: {error.strerror or error}") from error


def read_state(source: str, say: Callable[[str], object] | None = None) -> dict[str, torch.Tensor]:
    """Read the weights of a source by name, checked against its network.

    Args:
        source: Name of a network, or path of a safetensors file.
        say: As for ``weights_file``.

    Raises:
        SpecError: There is no such network.
        WeightsError: The weights are missing, damaged, or of something else.
    """
    return load(source, say).state_dict()


def load(source: str, say: Callable[[str], object] | None = None) -> torch.nn.Module:
    """Build a network with its weights, in eval mode and without gradients.

    Args:
        source: Name of a network, or path of a safetensors file.
        say: As for ``weights_file``.

    Returns:
        The module that ``Network.build`` describes.

    Raises:
        SpecError: There is no such network.
        WeightsError: The weights are missing, damaged, or of something else.
    """
    network = network_of(source)
    file = Path(source).expanduser() if is_file(source) else weights_file(network, say)
    module = network.build()
    load_into(module, read_weights(file), f"{file}: {network.name}")
    return module.eval().requires_grad_(False)


def _fetch(network: Network, folder: Folder, say: Callable[[str], object] | None) -> None:
    """Fetch a source, and write a file for each of its networks that is not here.

    Raises:
        WeightsError: Says why it cannot be fetched, and two remedies.
    """
    from pipelines.features.networks.fetch import fetched, offline

    if say is not None and not offline():
        megabytes = network.source.num_bytes / 1e6
        say(f"fetching the weights of {network.name} from {network.source} ({megabytes:.0f} MB)")
    try:
        with fetched(network.source) as file:
            for row in NETWORKS.values():
                if row.source == network.source and find(row) is None:
                    _write(row, row.convert(file), folder)
    except WeightsError as error:
        target = cached_file(network)
        lack = f"{target} is damaged" if target.exists() else f"its weights are not in {folder}"
        raise WeightsError(
            f"{network.name}: {lack}, and {error}\nTwo remedies: {remedies(network)}"
        ) from error


def _write(network: Network, state: Mapping[str, torch.Tensor], folder: Folder) -> None:
    """Write converted weights.

    Raises:
        WeightsError: They are not those that the row describes.
    """
    import safetensors.torch
    import torch

    metadata = {
        _NAME: network.name,
        "source": str(network.source),
        "source_sha256": network.source.sha256,
        "licence": network.licence,
        "trained_on": network.trained_on,
    }
    # Copies, because safetensors refuses tensors that share memory or have gaps.
    own = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in state.items()}
    content = safetensors.torch.save(own, metadata)
    if (found := content_digest(content)) != network.digest:
        raise WeightsError(
            f"{network.source} gave other weights than the known ones: their digest is {found} "
            f"instead of {network.digest}"
        )
    folder.write_bytes(cached_file(network).name, content)


def _metadata(file: Path) -> Mapping[str, str]:
    """Read the metadata of a safetensors file.

    Raises:
        WeightsError: The file is missing, or not a safetensors file.
    """
    try:
        # Opened here too, because errors of safetensors repeat the path and have no ``strerror``.
        with (
            expect_file(file).open("rb"),
            safetensors.safe_open(file, framework="numpy") as content,
        ):
            return dict(content.metadata() or {})
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (ValueError, safetensors.SafetensorError) as error:  # a NUL byte in the path
        raise WeightsError(f"{file}: not a safetensors file: {error}") from error
