"""The settings that a space file leaves out, added with their defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tuner.config.schema import Experiment
from tuner.config.tree import Block, Items, Leaf, Open, Tree, with_choices
from tuner.config.validate import most_trials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.config.yaml_text import Mark, Scalar


def fill_defaults(tree: Block) -> Block:
    """Add the defaults to every block that the file leaves out, in each alternative.

    Args:
        tree: A tree that has been checked.
    """
    filled = _fill(tree, tree, (), {})
    assert isinstance(filled, Block)
    return filled


def _fill(tree: Tree, root: Block, path: tuple[str, ...], context: Mapping[str, Scalar]) -> Tree:
    if isinstance(tree, Open):
        branches = {
            label: _fill(branch, root, path, {**context, tree.name: label})
            for label, branch in tree.branches.items()
        }
        return replace(tree, branches=branches)
    if not isinstance(tree, Block):
        return tree
    entries = {k: _fill(entry, root, (*path, k), context) for k, entry in tree.entries.items()}
    drawn = root.draw(with_choices(context))
    experiment = Experiment.model_validate(drawn.values)
    values = experiment.model_dump(mode="json")
    # What is not written must fit what is: the resolved file is loaded again.
    values["confirm"]["top"] = min(experiment.confirm.top, most_trials(root, experiment))
    if own := experiment.model.resources:
        values["model"]["resources"] = own.model_dump(mode="json")
    for piece in path:
        values = values[piece]
    # With folds, shares of one split would look as if they were used.
    unread = ("train", "val") if "train" in values and values.get("folds") else ()
    for key, value in values.items():
        # clips_per_track has a default only where a range of hop_seconds draws null.
        depends = key == "clips_per_track" and isinstance(entries.get("hop_seconds"), Open)
        if key not in entries and key not in unread and not depends:
            entries[key] = _as_tree(value, tree.mark)
    key_marks = {**dict.fromkeys(entries, tree.mark), **tree.key_marks}
    return replace(tree, entries=entries, key_marks=key_marks)


def _as_tree(value: Any, mark: Mark) -> Tree:
    if isinstance(value, dict):
        entries = {key: _as_tree(inner, mark) for key, inner in value.items()}
        return Block(entries, mark, dict.fromkeys(entries, mark))
    if isinstance(value, list):
        return Items(tuple(_as_tree(item, mark) for item in value), mark)
    return Leaf(value, mark)
