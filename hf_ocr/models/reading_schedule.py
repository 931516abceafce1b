"""Which lines are read together, and when: large batches of one bucket, and no reader that waits."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Generic, Protocol, TypeVar

from .reading_threads import ReadingThreads


class Line(Protocol):
    """What can be read with others of its bucket."""

    @property
    def bucket(self) -> tuple[int, ...]:
        """What the lines of one batch have in common, first of all the columns (px) that each takes."""


SomeLine = TypeVar("SomeLine", bound=Line)
Result = TypeVar("Result")

# Of a batch: as many lines a reader that has nothing to do takes while more come. With fewer it would begin sooner, but
# small batches take longer a line. Chosen on validation lines of SROIE.
WORTHWHILE = 1 / 2


def read_all(
    lines: Iterable[SomeLine],
    read: Callable[[list[SomeLine]], Iterable[Result]],
    then: Callable[[Result], Iterable[SomeLine]],
    batch_size: int,
    readers: ReadingThreads | None = None,
) -> None:
    """Read lines, and those that follow from what was read, until there are none.

    Lines are taken one by one, while others are read. With readers the batches depend on the time that this takes.

    Args:
        lines: in any order.
        read: gives the results of a batch of one bucket, in its order; called by the readers in threads of theirs.
        then: takes each result, in the calling thread, and gives lines to be read as well.
        batch_size: lines in a batch at most.
        readers: read as many batches at once; the calling thread reads when None, or where none can be started.

    Raises:
        Whatever `lines`, `read` or `then` raise; no batch is begun after that.
    """
    count = readers.start() if readers is not None else 0
    waiting = _WaitingLines[SomeLine](batch_size)
    reading: set[Future[Iterable[Result]]] = set()

    def follow(results: Iterable[Result]) -> None:
        for result in results:
            for line in then(result):
                waiting.add(line)

    remaining, more = iter(lines), True
    try:
        while True:
            for future in [future for future in reading if future.done()]:
                reading.remove(future)
                follow(future.result())
            idle = count - len(reading)
            if more:  # one full batch waits for a reader, so that it is there when one has done
                batch = waiting.take_from(WORTHWHILE if idle else 1.0) if idle >= 0 else []
            else:
                batch = waiting.share(idle or 1) if idle > 0 or not count else []
            if batch and readers is not None and count:
                reading.add(readers.submit(read, batch))
            elif batch:
                follow(read(batch))
            elif more:
                line = next(remaining, None)
                if line is None:
                    more = False
                else:
                    waiting.add(line)
            elif reading:
                wait(reading, return_when=FIRST_COMPLETED)
            else:
                return
    finally:
        for future in reading:
            future.cancel()


class _WaitingLines(Generic[SomeLine]):
    """Lines by bucket; batches are taken from the one with the widest lines, the longest work."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._buckets: dict[tuple[int, ...], list[SomeLine]] = defaultdict(list)

    def add(self, line: SomeLine) -> None:
        self._buckets[line.bucket].append(line)

    def take_from(self, filled: float) -> list[SomeLine]:
        """From a bucket that holds at least this share of a batch; empty where none does."""
        for bucket in sorted(self._buckets, reverse=True):
            if len(self._buckets[bucket]) >= filled * self._batch_size:
                return self._taken(bucket, self._batch_size)
        return []

    def share(self, parts: int) -> list[SomeLine]:
        """With at most one of so many parts of all columns, or one line; empty where nothing waits."""
        if not self._buckets:
            return []
        columns = sum(bucket[0] * len(lines) for bucket, lines in self._buckets.items())
        widest = max(self._buckets)
        return self._taken(widest, min(self._batch_size, math.ceil(columns / parts / widest[0])))

    def _taken(self, bucket: tuple[int, ...], count: int) -> list[SomeLine]:
        lines = self._buckets.pop(bucket)
        if lines[count:]:
            self._buckets[bucket] = lines[count:]
        return lines[:count]
