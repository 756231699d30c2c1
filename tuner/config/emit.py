"""A tree to the text of a space file that reads back as the same tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.config.range_kinds import arguments_of
from tuner.config.scalars import write
from tuner.config.tree import Block, Items, Leaf, Open

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuner.config.tree import Tree


def to_yaml(tree: Block) -> str:
    """Write a tree: blocks over several lines, what is inside them on one line each."""
    lines: list[str] = []
    for key, entry in tree.entries.items():
        if isinstance(entry, Block) and entry.entries:
            lines.append(f"{write(key)}:")
            lines.extend(f"  {write(k)}: {_flow(inner)}" for k, inner in entry.entries.items())
        elif isinstance(entry, Open):
            lines.extend([f"{write(key)}:", f"  {entry.range.kind}:"])
            lines.extend(f"    - {option}" for option in _options(entry))
        else:
            lines.append(f"{write(key)}: {_flow(entry)}")
    return "\n".join(lines) + "\n"


def settings(tree: Block) -> dict[str, str]:
    """Every setting of a tree by name, as the text that `to_yaml` writes for it."""
    found: dict[str, str] = {}
    for key, entry in tree.entries.items():
        if isinstance(entry, Block):
            found |= {f"{key}.{name}": _flow(inner) for name, inner in entry.entries.items()}
        else:
            found[key] = _flow(entry)
    return found


def _flow(tree: Tree) -> str:
    if isinstance(tree, Leaf):
        return write(tree.value)
    if isinstance(tree, Items):
        return f"[{', '.join(_flow(item) for item in tree.items)}]"
    if isinstance(tree, Open):
        return f"{{{tree.range.kind}: [{', '.join(_options(tree))}]}}"
    return f"{{{', '.join(f'{write(key)}: {_flow(e)}' for key, e in tree.entries.items())}}}"


def _options(tree: Open) -> Iterable[str]:
    for argument in arguments_of(tree.range):
        branch = tree.branches.get(argument) if isinstance(argument, str) else None
        yield write(argument) if branch is None else _flow(branch)
