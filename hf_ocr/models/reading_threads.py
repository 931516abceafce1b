"""Batches read side by side on a CPU, each in threads of its own: what is small, or Python, keeps no core waiting."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from threading import Barrier, Lock
from types import TracebackType
from typing import Self, TypeVar

import torch

Batch = TypeVar("Batch")
Result = TypeVar("Result")

MOST_READERS = 4  # each holds the activations of a batch
_STARTING = Lock()


class ReadingThreads:
    """Up to `MOST_READERS` threads that share torch's, for what a model reads on `device`; a context.

    They start with the first work for two of them. Where there is nothing to share (another device than a CPU, a
    single thread, autocast, which is the calling thread's own, a torch without OpenMP, no thread to be had), all is
    read in the calling thread.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._executor: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown()

    def map(self, read: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
        """What `read` gives for each batch, in order; a single batch is read in the calling thread.

        Batches are taken as fast as they come, and read meanwhile. `read` finds none of the calling thread's contexts.
        """
        remaining = iter(batches)
        first = list(islice(remaining, 2))
        executor = self._started() if len(first) == 2 else None
        if executor is None:
            yield from map(read, chain(first, remaining))
            return
        futures: list[Future[Result]] = []
        try:
            for batch in chain(first, remaining):
                futures.append(executor.submit(read, batch))
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def _started(self) -> ThreadPoolExecutor | None:
        threads = torch.get_num_threads()
        count = min(threads, MOST_READERS)
        if torch.is_autocast_enabled("cpu"):
            return None
        if self._executor is None and self._device.type == "cpu" and count > 1:
            if "parallel backend: OpenMP" in torch.__config__.parallel_info():
                self._executor = _readers([threads // count + (index < threads % count) for index in range(count)])
        return self._executor


def _readers(shares: list[int]) -> ThreadPoolExecutor | None:
    """Threads with these numbers of torch's threads, all of them started; None where they cannot be had."""
    executor = ThreadPoolExecutor(len(shares))
    all_there = Barrier(len(shares), timeout=60)

    def take(share: int) -> None:
        all_there.wait()  # one share for each of them
        torch.get_num_threads()  # a thread's first question sets its number to that of new threads
        torch.set_num_threads(share)  # this thread's number, and that of new threads

    # One at a time, or one would take the number that the other has lowered for that of new threads.
    with _STARTING, ThreadPoolExecutor(1) as asked, ThreadPoolExecutor(1) as restoring:
        try:
            number = asked.submit(torch.get_num_threads).result()
            restoring.submit(int).result()  # there before anything is lowered
            taken = []
            try:
                taken = [executor.submit(take, share) for share in shares]
            finally:
                if len(taken) < len(shares):
                    all_there.abort()
            try:
                for future in taken:
                    future.result()
            finally:
                restoring.submit(torch.set_num_threads, number).result()
        except RuntimeError:  # no thread can be started
            executor.shutdown(wait=False, cancel_futures=True)
            return None
    return executor
