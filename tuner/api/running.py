"""Run a study from Python, as ``python -m tuner.run`` does."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

from pipelines.plain_text import echo, printable
from pipelines.storage import Folder
from tuner.api.study import Study
from tuner.errors import UsageError
from tuner.ledger import journal
from tuner.ledger.journal import StudyPaths


def run_study(  # noqa: PLR0913 - what a command line names, by name here too
    space: str | Path,
    data: str | Path | None = None,
    name: str | None = None,
    storage: str | Path = "results",
    budget: str | None = None,
    address: str | None = None,
    extend: int | str | None = None,
    **settings: Any,
) -> Study:
    """Run a study to its end, or continue it; a finished one is only opened.

    In a notebook, interrupting the kernel keeps finished work, and the same call continues.

    Args:
        space: Space file, or the name of a shipped one: ``auto``, ``quickstart``.
        data: Folder of class folders, a manifest, or a URI of either; default: the space file's.
        name: Name of the study; default: the space file's.
        storage: Folder of results.
        budget: Time limit of the study, such as ``"30m"``.
        address: Ray cluster; default: RAY_ADDRESS, else one on this machine.
        extend: Add so many trials to the study, or a time such as ``"20m"``. A call that is
            repeated adds nothing: ``"8@16"`` names the trials that the study has before.
        settings: Settings to replace, as values, ranges or blocks: ``train__epochs=3``, with
            ``__`` for the dot; ``**{"train.epochs": 3}`` works as well.

    Raises:
        UserError: The study cannot run; says what to change. Finished work is kept.
        KeyboardInterrupt: The user interrupted it; finished work is kept.
    """
    from tuner.run import check, load_space
    from tuner.study import features
    from tuner.study.begin import refuse
    from tuner.study.extend import Request
    from tuner.study.surroundings import AtHand

    folder = Folder.at(storage)
    folder.check(writes=True)
    options = {
        "data": None if data is None else str(data), "name": name, "trials": None,
        "budget": budget, "overrides": _overrides(settings), "leaky_twin": False, "extend": extend,
    }  # fmt: skip
    asked = None if extend is None else Request.read(str(extend))
    loaded, root = load_space(Path(space), options, AtHand(folder))
    for problem in (*loaded.warnings, *loaded.remarks):
        warnings.warn(printable(problem), UserWarning, stacklevel=2)
    source = features.data_source(root, folder)
    paths = StudyPaths(folder, loaded.name, source)
    if asked or not journal.is_finished(paths.folder):
        refuse(loaded, paths, asked)
        check(loaded, source)
        if loaded.is_pretrained:
            from tuner.study.preflight import check_weights  # loads torch

            check_weights(loaded, echo)
    # Ray asks for widgets of the notebook that this program does not use.
    logging.getLogger("ray.widgets").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tuner.study.run import carry_out  # loads Ray, MLflow and torch

        carry_out(loaded, paths, address, asked=asked)
    return Study(paths.folder)


def _overrides(settings: dict[str, Any]) -> list[str]:
    """Return settings in the form of ``--set``."""
    try:
        return [
            f"{name.replace('__', '.')}={json.dumps(value, allow_nan=False)}"
            for name, value in settings.items()
        ]
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"a setting must be a number, a text, a list or a dict: {error}"
        ) from None
