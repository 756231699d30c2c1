"""Decode on a Ray cluster: many items through one function, as a Ray Data graph."""

from __future__ import annotations

import logging
import pickle
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.build import ray_start
from pipelines.errors import BuildError, StorageFullError, UserError, is_storage_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipelines.build.decode import DecodeBatch, Verdicts
    from pipelines.build.ray_watch import OnLoss
    from pipelines.build.tasks import DecodeJob

# Items queued at a worker. Ray Data's driver polls every 0.1 to 0.2 s; a worker without a queue
# would be idle for as long after each item (docs/decisions.md).
_QUEUE = 4
# Workers die for reasons outside this program (memory, a lost node). Ray replaces one and hands
# its items out again; an item whose worker has died three times would kill the next one too.
_TRIES = 3
_MAX_RESTARTS = 100  # of one worker, which may die while it starts, with no item to blame


def decode_on_cluster(
    job: DecodeJob, batches: Sequence[DecodeBatch]
) -> Iterator[tuple[DecodeBatch, Verdicts]]:
    """Decode batches with Ray Data on the connected cluster, or here; rows stay in staging.

    Yields:
        A batch and its verdicts for each output, in the order in which batches finish.

    Raises:
        BuildError: The workers die again and again.
        StorageFullError: No room is left in a staging folder.
    """
    from pipelines.build.decode import decode_batch, decode_here

    if job.belongs_here:
        yield from decode_here(job, batches)
        return
    for number, verdicts in run_all(decode_batch, batches, job):
        yield batches[number], verdicts


def run_all(
    work: Callable[[Any, Any], Any], items: Sequence[Any], shared: object
) -> Iterator[tuple[int, Any]]:
    """Call ``work(item, shared)`` for each item on the cluster, one item per processor at a time.

    A worker that dies is replaced, and its items are handed out again at once.

    Args:
        work: Function of an importable module.
        items: Small picklable items; large data belongs on disk.
        shared: Second argument of every call.

    Yields:
        The number of the item and the result, in the order in which items finish.

    Raises:
        UserError: ``work`` raised it; BuildError if workers die again and again,
            StorageFullError if a disk is full.
    """
    if not items:
        return
    import ray.data

    # Set here and not at import, so that the caller's own use of Ray Data keeps its settings.
    with warnings.catch_warnings():
        # Copying touches every field, and the deprecated ones warn.
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)]
    num_workers = min(len(rows), max(1, int(ray.cluster_resources().get("CPU", 1))))
    pool = ray.data.ActorPoolStrategy(
        min_size=num_workers, max_size=len(rows), max_tasks_in_flight_per_actor=_QUEUE
    )
    with ray.data.DataContext.current(context), _quiet("ray.data"):
        with warnings.catch_warnings():
            # Ray 2.64 removes this way to set max_restarts, and has no replacement yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Worker,
                batch_size=None,
                compute=pool,
                num_cpus=1,
                fn_constructor_args=(work, shared),
                max_restarts=_MAX_RESTARTS,
                max_task_retries=_TRIES - 1,
            )
        try:
            for row in data.iter_rows():
                # Our own workers pickled it a moment ago, out of reach of any user.
                result = pickle.loads(row["result"])
                if isinstance(result, UserError):
                    raise result
                yield int(row["number"]), result
        except ray.exceptions.RayActorError as error:
            raise BuildError(
                f"the processes that read the audio died {_TRIES} times in a row: "
                f"{str(error).splitlines()[0]} Is there enough memory? Finished work is kept."
            ) from error


class _Worker:
    """The function that Ray runs on each block of items."""

    def __init__(self, work: Callable[[Any, Any], Any], shared: object) -> None:
        self._work = work
        self._shared = shared

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Turn the columns ``number`` and ``item`` into ``number`` and ``result``.

        An error meant for the user is returned as a result, because Ray would wrap it.
        """
        return {
            "number": list(batch["number"]),
            "result": [pickle.dumps(self._result(pickle.loads(item))) for item in batch["item"]],
        }

    def _result(self, item: object) -> object:
        try:
            return self._work(item, self._shared)
        except UserError as error:
            return error
        except OSError as error:
            if is_storage_full(error):
                return StorageFullError(error.filename or "the folder of the feature sets")
            raise


@contextmanager
def local_ray(on_loss: OnLoss | None = None) -> Iterator[None]:
    """Run Ray on this machine, or connect to the cluster in RAY_ADDRESS, for one build.

    Args:
        on_loss: As for ``ray_start.connect``.
    """
    ray_start.connect(None, include_dashboard=False, on_loss=on_loss)
    try:
        with ray_start.in_words():
            yield
    finally:
        ray_start.disconnect()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger; failures come back as exceptions."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
