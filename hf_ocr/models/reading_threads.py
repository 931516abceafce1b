"""Batches read side by side on a CPU, each in threads of its own: what is small, or Python, keeps no core waiting."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from threading import Thread
from typing import TypeVar

import torch

Batch = TypeVar("Batch")
Result = TypeVar("Result")

MOST_READERS = 4  # each holds the activations of a batch


@contextmanager
def reading_threads(device: torch.device) -> Iterator[Executor | None]:
    """Up to `MOST_READERS` threads that share torch's; None where there is nothing to share.

    torch's number of threads stays what it was for everybody else. That it can be a thread's own is so with OpenMP.
    """
    threads = torch.get_num_threads()
    count = min(threads, MOST_READERS)
    if device.type != "cpu" or count < 2 or "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        yield None
        return
    with ThreadPoolExecutor(count, initializer=_take_share, initargs=(threads // count, threads)) as readers:
        yield readers


def _take_share(share: int, threads: int) -> None:
    torch.get_num_threads()  # a thread's first question sets its number to that of new threads
    torch.set_num_threads(share)  # this thread's number, and that of new threads
    restorer = Thread(target=torch.set_num_threads, args=(threads,))
    restorer.start()
    restorer.join()


def side_by_side(readers: Executor, read: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
    """What `read` gives for each batch, in order; a single batch is read in the calling thread, with all of torch's.

    Batches are taken as fast as they come, and read meanwhile.
    """
    remaining = iter(batches)
    if len(first := list(islice(remaining, 2))) < 2:
        yield from map(read, first)
        return
    futures: list[Future[Result]] = []
    try:
        for batch in chain(first, remaining):
            futures.append(readers.submit(read, batch))
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
