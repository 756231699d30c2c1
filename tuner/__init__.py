"""Search, training, tracking and prediction of audio classifiers."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.api.model import Model, load_model
    from tuner.api.running import run_study
    from tuner.api.study import Study, open_study

__all__ = ["Model", "Study", "load_model", "open_study", "run_study"]

# Imported when they are used: `import tuner` waits for neither torch nor Ray.
_PLACES = {
    "Model": "tuner.api.model",
    "Study": "tuner.api.study",
    "load_model": "tuner.api.model",
    "open_study": "tuner.api.study",
    "run_study": "tuner.api.running",
}


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
