"""A function over many items on the cluster, as a Ray Data graph."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.errors import BuildError, PipelineError, StorageFullError, is_storage_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Items that wait at a worker. Ray Data's driver looks around every 0.1 to 0.2 s; a worker without
# a queue stands idle for as long after each item (docs/decisions.md).
_QUEUE = 4
# Workers die of something outside of this program (memory, a node that goes); what dies three
# times in a row will die again.
_TRIES = 3


def run_all(
    work: Callable[[Any, Any], Any], items: Sequence[Any], shared: object
) -> Iterator[tuple[int, Any]]:
    """Calls `work(item, shared)` for each item on the cluster, one item a processor at a time.

    Items of a worker that dies are given to others.

    Args:
        work: a function of an importable module.
        items: what can be pickled and is small; large things belong on disk.
        shared: what all items share.

    Yields:
        The number of the item and the result, in the order in which they end.

    Raises:
        PipelineError: As `work` raises it. BuildError when workers die again and again,
            StorageFullError when no room is left where something had to be written.
    """
    import ray

    left = dict(enumerate(items))
    tries = 0
    while left:
        num_left = len(left)
        try:
            for number, result in _run_once(work, dict(left), shared):
                del left[number]
                yield number, result
        except ray.exceptions.RayActorError as error:
            tries = 1 if len(left) < num_left else tries + 1
            if tries == _TRIES:
                raise BuildError(
                    f"the processes that read the audio died {_TRIES} times in a row: "
                    f"{str(error).splitlines()[0]} Is there enough memory? Finished work is kept."
                ) from error


def _run_once(
    work: Callable[[Any, Any], Any], items: dict[int, Any], shared: object
) -> Iterator[tuple[int, Any]]:
    import ray.data

    # Set here and not at import: the caller's own use of Ray Data keeps its settings.
    with warnings.catch_warnings():
        # copying touches every field, and the deprecated ones speak up
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"number": number, "item": pickle.dumps(item)} for number, item in items.items()]
    num_workers = min(len(rows), max(1, int(ray.cluster_resources().get("CPU", 1))))
    pool = ray.data.ActorPoolStrategy(
        min_size=num_workers, max_size=len(rows), max_tasks_in_flight_per_actor=_QUEUE
    )
    with ray.data.DataContext.current(context), _quiet("ray.data"):
        with warnings.catch_warnings():
            # the way to say max_restarts goes away with Ray 2.64, and has no other yet
            warnings.simplefilter("ignore", DeprecationWarning)
            data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Worker,
                batch_size=None,
                compute=pool,
                num_cpus=1,
                fn_constructor_args=(work, shared),
                # Ray complains on the terminal about actors that it would restart
                max_restarts=0,
            )
        for row in data.iter_rows():
            # made by our own workers a moment ago; it lies nowhere that a user could reach
            result = pickle.loads(row["result"])
            if isinstance(result, PipelineError):
                raise result
            yield int(row["number"]), result


class _Worker:
    """What Ray runs on each block of items."""

    def __init__(self, work: Callable[[Any, Any], Any], shared: object) -> None:
        self._work = work
        self._shared = shared

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Columns `number` and `item` to `number` and `result`.

        An error that is meant for the user travels as a result: Ray would wrap it.
        """
        return {
            "number": list(batch["number"]),
            "result": [pickle.dumps(self._result(pickle.loads(item))) for item in batch["item"]],
        }

    def _result(self, item: object) -> object:
        try:
            return self._work(item, self._shared)
        except PipelineError as error:
            return error
        except OSError as error:
            if is_storage_full(error):
                return StorageFullError(error.filename or "the folder of the feature sets")
            raise


@contextmanager
def local_ray() -> Iterator[None]:
    """Ray on this machine, or the cluster that RAY_ADDRESS names, for one build."""
    # Decided before Ray is loaded: it reads these once.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    ray.init(  # noqa: TID251  # this package cannot import the tuner's cluster module
        address=os.environ.get("RAY_ADDRESS") or "local",
        logging_level=logging.ERROR,
        log_to_driver=False,
        **({} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}),
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silences a logger; what goes wrong comes back as an exception."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
