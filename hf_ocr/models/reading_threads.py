"""Batches read side by side on a CPU, each in threads of its own: what is small, or Python, keeps no core waiting."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Lock
from types import TracebackType
from typing import Self, TypeVar

import torch

Batch = TypeVar("Batch")
Result = TypeVar("Result")

MOST_READERS = 4  # each holds the activations of a batch
_STARTING = Lock()


class ReadingThreads:
    """Up to `MOST_READERS` threads that share torch's, for what a model reads on `device`; a context."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._executor: ThreadPoolExecutor | None = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown()

    def start(self) -> int:
        """How many there are, from the first call on.

        None where there is nothing to share: another device than a CPU, a single thread, autocast, which is the
        calling thread's own, a torch without OpenMP, no thread to be had. The calling thread is to read then.
        """
        with _STARTING:  # a thread that asks for the first time would be told, and keep, a number lowered for a reader
            threads = torch.get_num_threads()
        if torch.is_autocast_enabled("cpu"):
            return 0
        if self._executor is None and self._device.type == "cpu" and threads > 1:
            if "parallel backend: OpenMP" in torch.__config__.parallel_info():
                count = min(threads, MOST_READERS)
                shares = [threads // count + (index < threads % count) for index in range(count)]
                self._executor = _readers(shares)
                self._count = count if self._executor is not None else 0
        return self._count

    def submit(self, read: Callable[[Batch], Result], batch: Batch) -> Future[Result]:
        """Have a batch read once they were started; `read` finds none of the calling thread's contexts."""
        if self._executor is None:
            raise RuntimeError("no reading thread was started: call start(), and read in the calling thread if it is 0")
        return self._executor.submit(read, batch)


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
