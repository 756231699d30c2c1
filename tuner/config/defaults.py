"""Fills the defaults into a tree, so that it says everything that an experiment needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.config.schema import Experiment
from tuner.config.tree import Block, Items, Leaf, Open, draw, with_choices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.config.range_kinds import Scalar
    from tuner.config.tree import Path, Tree
    from tuner.config.yaml_nodes import Mark


def fill_defaults(tree: Block) -> Block:
    """Add what the file leaves out to every block, also to those of each alternative.

    Args:
        tree: A tree that has been checked.
    """
    filled = _fill(tree, tree, (), {})
    assert isinstance(filled, Block)
    return filled


def _fill(tree: Tree, root: Block, path: Path, context: Mapping[str, Scalar]) -> Tree:
    if isinstance(tree, Open):
        branches = {
            label: _fill(branch, root, path, {**context, tree.name: label})
            for label, branch in tree.branches.items()
        }
        return Open(tree.name, tree.range, branches, tree.mark, tree.argument_marks)
    if not isinstance(tree, Block):
        return tree
    written = {k: _fill(e, root, (*path, k), context) for k, e in tree.entries.items()}
    values = _resolved(root, context)
    for piece in path:
        values = values[piece]
    added = {
        key: _tree(value, tree.mark)
        for key, value in values.items()
        if key not in written and not _depends(path, key, written)
    }
    marks = {**dict.fromkeys(added, tree.mark), **tree.key_marks}
    return Block({**written, **added}, tree.mark, marks)


def _depends(path: Path, key: str, written: Mapping[str, Tree]) -> bool:
    """``clips_per_track`` has a default only where a range of ``hop_seconds`` draws null."""
    return (
        path == ("data",)
        and key == "clips_per_track"
        and isinstance(written.get("hop_seconds"), Open)
    )


def _resolved(root: Block, context: Mapping[str, Scalar]) -> Any:
    experiment = Experiment.model_validate(draw(root, with_choices(context)).values)
    return experiment.model_dump(mode="json")


def _tree(value: Any, mark: Mark) -> Tree:
    if isinstance(value, dict):
        entries = {key: _tree(inner, mark) for key, inner in value.items()}
        return Block(entries, mark, dict.fromkeys(entries, mark))
    if isinstance(value, list):
        return Items(tuple(_tree(item, mark) for item in value), mark)
    return Leaf(value, mark)
