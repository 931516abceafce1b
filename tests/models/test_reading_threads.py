"""Several batches read at once: the same readings, and torch's threads as they were."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch
from tiny_training import rendered, untrained

from hf_ocr.models import reading_threads
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
            assert readers.start() == 4
            assert sorted(future.result() for future in [readers.submit(ask, None) for _ in range(4)]) == [1, 1, 1, 2]
            assert (torch.get_num_threads(), threads_of_a_new_thread()) == (5, 5)
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (5, 5)


def test_many_at_once_leave_new_threads_their_number(five_threads):
    def request(_):
        with ReadingThreads(CPU) as readers:
            assert readers.start() > 0

    with ThreadPoolExecutor(8) as requests:
        list(requests.map(request, range(40)))
    assert threads_of_a_new_thread() == 5


def test_a_new_thread_is_not_told_the_number_of_a_reader_that_starts(five_threads):
    def count(_):
        with ReadingThreads(CPU) as readers:
            return readers.start()

    with ThreadPoolExecutor(1) as request:
        with reading_threads._STARTING:  # as while another request starts its readers
            torch.set_num_threads(1)
            counted = request.submit(count, None)
            assert wait([counted], timeout=0.5).not_done
            torch.set_num_threads(5)
        assert counted.result() == 4


def test_none_are_started_where_nothing_is_to_be_shared(five_threads):
    with ReadingThreads(torch.device("meta")) as readers:
        assert readers.start() == 0
        with pytest.raises(RuntimeError, match="call start"):
            readers.submit(str, 1)
    with ReadingThreads(CPU) as readers, torch.autocast("cpu", dtype=torch.bfloat16):
        assert readers.start() == 0
    with ReadingThreads(CPU) as readers:
        torch.set_num_threads(1)
        assert readers.start() == 0


def test_autocast_comes_and_goes(five_threads):
    with ReadingThreads(CPU) as readers:
        assert readers.start() == 4
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert readers.start() == 0
        assert readers.start() == 4


def test_no_threads_to_be_had(five_threads, monkeypatch):
    def refuse(self):
        if started.append(self) or len(started) > 4:
            raise RuntimeError("can't start new thread")
        start(self)

    started, start = [], threading.Thread.start
    with monkeypatch.context() as patch, ReadingThreads(CPU) as readers:
        patch.setattr(threading.Thread, "start", refuse)
        assert readers.start() == 0
    assert threads_of_a_new_thread() == 5


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
