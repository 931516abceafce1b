"""Several batches read at once: the same readings, and torch's threads as they were."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_training import rendered, untrained

from hf_ocr.models.reading import read_images
from hf_ocr.models.reading_threads import ReadingThreads

CPU = torch.device("cpu")


@pytest.fixture
def five_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread():
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(torch.get_num_threads).result()


def test_readers_share_torchs_threads_and_nobody_else_loses_any(five_threads):
    meeting = threading.Barrier(4, timeout=60)

    def ask(_):
        meeting.wait()  # four of them at once
        return torch.get_num_threads()

    with ReadingThreads(CPU) as readers:
        for _ in range(2):
            assert sorted(readers.map(ask, range(4))) == [1, 1, 1, 2]
            assert (torch.get_num_threads(), threads_of_a_new_thread()) == (5, 5)
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (5, 5)


def test_many_at_once_leave_new_threads_their_number(five_threads):
    def request(_):
        with ReadingThreads(CPU) as readers:
            list(readers.map(lambda batch: batch, range(4)))

    with ThreadPoolExecutor(8) as requests:
        list(requests.map(request, range(40)))
    assert threads_of_a_new_thread() == 5


def in_the_calling_thread(readers):
    return set(readers.map(lambda _: threading.get_ident(), range(3))) == {threading.get_ident()}


def test_where_nothing_is_to_be_shared_the_calling_thread_reads(five_threads, monkeypatch):
    with ReadingThreads(torch.device("meta")) as readers:
        assert in_the_calling_thread(readers)
    with ReadingThreads(CPU) as readers, torch.autocast("cpu", dtype=torch.bfloat16):
        assert in_the_calling_thread(readers)
    with ReadingThreads(CPU) as readers:
        torch.set_num_threads(1)
        assert in_the_calling_thread(readers)


def test_no_threads_to_be_had(five_threads, monkeypatch):
    def refuse(self):
        if started.append(self) or len(started) > 4:
            raise RuntimeError("can't start new thread")
        start(self)

    started, start = [], threading.Thread.start
    with monkeypatch.context() as patch, ReadingThreads(CPU) as readers:
        patch.setattr(threading.Thread, "start", refuse)
        assert in_the_calling_thread(readers)
    assert threads_of_a_new_thread() == 5


def test_results_keep_the_order_and_one_batch_keeps_the_thread(five_threads):
    with ReadingThreads(CPU) as readers:
        seen = list(readers.map(lambda batch: (batch, threading.get_ident()), range(20)))
        assert [batch for batch, _ in seen] == list(range(20))
        assert threading.get_ident() not in {thread for _, thread in seen}
        assert list(readers.map(lambda _: threading.get_ident(), [0])) == [threading.get_ident()]
        assert list(readers.map(str, [])) == []


def test_batches_are_read_while_others_are_still_made(five_threads):
    read = threading.Event()

    def batches():
        yield from (0, 1)
        assert read.wait(60)
        yield 2

    with ReadingThreads(CPU) as readers:
        assert list(readers.map(lambda batch: read.set() or batch, batches())) == [0, 1, 2]


def test_an_error_ends_the_reading_of_what_waits(five_threads):
    started, go_on = [], threading.Event()

    def read(batch):
        started.append(batch)
        assert go_on.wait(60)

    def batches():
        yield from range(10)
        raise ValueError("image 10")

    with ReadingThreads(CPU) as readers:
        with pytest.raises(ValueError, match="image 10"):
            list(readers.map(read, batches()))
        go_on.set()
    assert len(started) <= 4


@pytest.mark.parametrize("training", [False, True])
def test_readings_are_those_of_one_batch_after_the_other(five_threads, training):
    words = ["cat", "hello", "noon", "a longer line of words", "tree", "", "label"] * 6
    model, processor = untrained(words, [8, 8, 8, 8, 16, 16, 16, 16], 16)
    images = [rendered(word)["image"] for word in words]
    images[3] = images[3].rotate(90, expand=True)
    options = {"batch_size": 4, "with_characters": True}
    alone = read_images(model.eval(), processor, images, **options)
    before = {name: value.clone() for name, value in model.train(training).state_dict().items()}
    with ReadingThreads(CPU) as readers:
        together = read_images(model, processor, images, readers=readers, **options)
    assert [reading.text for reading in together] == [reading.text for reading in alone]
    assert [reading.characters for reading in together] == [reading.characters for reading in alone]
    assert [reading.score for reading in together] == pytest.approx([reading.score for reading in alone], rel=1e-4)
    assert {module.training for module in model.modules()} == {training}
    assert [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])] == []
