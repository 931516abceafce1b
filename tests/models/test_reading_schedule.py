"""Lines in batches, by readers whose work the tests hold back or let go."""

import threading
from typing import NamedTuple

import pytest
import torch

from hf_ocr.models.reading_schedule import read_all
from hf_ocr.models.reading_threads import ReadingThreads

CPU = torch.device("cpu")


class Line(NamedTuple):
    number: int
    columns: int = 10
    again: int = 0

    @property
    def bucket(self):
        return (self.columns, 1)


class Work:
    """Keeps what was read, and hands out the lines that follow."""

    def __init__(self):
        self.batches, self.results, self.threads = [], [], []

    def read(self, batch):
        self.batches.append(batch)
        self.threads.append(threading.get_ident())
        return batch

    def then(self, line):
        self.results.append(line)
        return [line._replace(again=line.again - 1)] if line.again else []

    def sizes(self):
        return [len(batch) for batch in self.batches]


@pytest.fixture
def two_readers():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with ReadingThreads(CPU) as readers:
        yield readers
    torch.set_num_threads(before)


def test_the_calling_thread_reads_full_batches_as_they_come_and_then_the_widest_first():
    work, seen = Work(), []

    def lines():
        for number in range(9):
            yield Line(number, 10 * (number % 3 + 1))
            seen.append(len(work.batches))

    read_all(lines(), work.read, work.then, batch_size=2)
    assert seen == [0, 0, 0, 1, 2, 3, 3, 3, 3]
    assert [[line.columns for line in batch] for batch in work.batches] == [
        [10] * 2,
        [20] * 2,
        [30] * 2,
        [30],
        [20],
        [10],
    ]
    assert sorted(line.number for line in work.results) == list(range(9))
    assert set(work.threads) == {threading.get_ident()}


def test_what_follows_is_read_with_what_still_waits():
    work = Work()
    read_all([Line(0, 30, again=2), Line(1, 20), Line(2, 30)], work.read, work.then, batch_size=2)
    assert work.batches == [[Line(0, 30, 2), Line(2, 30)], [Line(0, 30, 1)], [Line(0, 30, 0)], [Line(1, 20)]]


def test_without_lines_nothing_is_read(two_readers):
    work = Work()
    read_all([], work.read, work.then, batch_size=2, readers=two_readers)
    assert work.batches == []


@pytest.mark.parametrize("again", [0, 2])
def test_readers_read_every_line_once_and_its_followers(two_readers, again):
    work = Work()
    lines = [Line(number, 10 * (number % 7 + 1), again) for number in range(200)]
    read_all(lines, work.read, work.then, batch_size=8, readers=two_readers)
    assert sorted(work.results) == sorted(line._replace(again=left) for line in lines for left in range(again + 1))
    assert max(work.sizes()) <= 8
    assert all(len({line.bucket for line in batch}) == 1 for batch in work.batches)
    assert threading.get_ident() not in work.threads


def test_what_is_left_is_shared_among_readers(two_readers):
    work, both = Work(), threading.Barrier(2, timeout=60)

    def read(batch):
        both.wait()  # neither is done before the other has begun
        return work.read(batch)

    read_all([Line(number) for number in range(11)], read, work.then, batch_size=64, readers=two_readers)
    assert sorted(work.sizes()) == [5, 6]


def test_a_reader_with_nothing_to_do_takes_half_a_batch_while_lines_still_come(two_readers):
    work, begun = Work(), threading.Event()

    def read(batch):
        begun.set()
        return work.read(batch)

    def lines():
        yield from map(Line, range(4))
        assert begun.wait(60)
        yield Line(4)

    read_all(lines(), read, work.then, batch_size=8, readers=two_readers)
    assert work.sizes() == [4, 1]


def test_a_single_full_batch_waits_for_a_reader(two_readers, monkeypatch):
    """So that the rest can be shared in the end."""
    work, submitted, while_reading, go_on = Work(), [], [], threading.Event()
    submit = two_readers.submit
    monkeypatch.setattr(two_readers, "submit", lambda read, batch: submitted.append(len(batch)) or submit(read, batch))

    def read(batch):
        assert go_on.wait(60)
        return work.read(batch)

    def lines():
        yield from map(Line, range(28))
        while_reading.extend(submitted)
        go_on.set()

    read_all(lines(), read, work.then, batch_size=4, readers=two_readers)
    assert while_reading == [2, 2, 4]
    assert sum(submitted) == 28


def test_an_error_ends_the_reading_of_what_waits(two_readers):
    started, go_on = [], threading.Event()

    def read(batch):
        started.append(batch)
        assert go_on.wait(60)
        return batch

    def lines():
        yield from map(Line, range(40))
        raise ValueError("image 40")

    with pytest.raises(ValueError, match="image 40"):
        read_all(lines(), read, lambda line: [], batch_size=4, readers=two_readers)
    go_on.set()
    with pytest.raises(ZeroDivisionError):
        read_all(map(Line, range(40)), lambda batch: 1 / 0, lambda line: [], batch_size=4, readers=two_readers)
    assert len(started) <= 2
