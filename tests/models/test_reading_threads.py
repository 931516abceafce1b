"""Several batches read at once: the same readings, and torch's threads as they were."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_training import rendered, untrained

from hf_ocr.models.reading import read_images
from hf_ocr.models.reading_threads import reading_threads, side_by_side

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

    def ask():
        meeting.wait()  # four of them at once
        return torch.get_num_threads()

    with reading_threads(CPU) as readers:
        assert [future.result() for future in [readers.submit(ask) for _ in range(4)]] == [1] * 4
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (5, 5)
        assert [future.result() for future in [readers.submit(ask) for _ in range(4)]] == [1] * 4
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (5, 5)


def test_one_thread_and_other_devices_have_nothing_to_share(five_threads):
    with reading_threads(torch.device("meta")) as readers:
        assert readers is None
    torch.set_num_threads(1)
    with reading_threads(CPU) as readers:
        assert readers is None


def test_results_keep_the_order_and_one_batch_keeps_the_thread():
    with ThreadPoolExecutor(3) as readers:
        seen = list(side_by_side(readers, lambda batch: (batch, threading.get_ident()), range(20)))
        assert [batch for batch, _ in seen] == list(range(20))
        assert threading.get_ident() not in {thread for _, thread in seen}
        assert list(side_by_side(readers, lambda _: threading.get_ident(), [0])) == [threading.get_ident()]
        assert list(side_by_side(readers, str, [])) == []


def test_batches_are_read_while_others_are_still_made():
    read = threading.Event()

    def batches():
        yield from (0, 1)
        assert read.wait(60)
        yield 2

    with ThreadPoolExecutor(1) as readers:
        assert list(side_by_side(readers, lambda batch: read.set() or batch, batches())) == [0, 1, 2]


def test_an_error_ends_the_reading_of_what_waits():
    started, go_on = [], threading.Event()

    def read(batch):
        started.append(batch)
        assert go_on.wait(60)

    def batches():
        yield from range(10)
        go_on.set()
        raise ValueError("image 10")

    with ThreadPoolExecutor(1) as readers, pytest.raises(ValueError, match="image 10"):
        list(side_by_side(readers, read, batches()))
    assert len(started) < 10


def test_readings_are_those_of_one_batch_after_the_other(five_threads):
    words = ["cat", "hello", "noon", "a longer line of words", "tree", "", "label"] * 6
    model, processor = untrained(words, [8, 8, 8, 8, 16, 16, 16, 16], 16)
    images = [rendered(word)["image"] for word in words]
    images[3] = images[3].rotate(90, expand=True)
    options = {"batch_size": 4, "with_characters": True}
    alone = read_images(model.eval(), processor, images, **options)
    with reading_threads(CPU) as readers:
        together = read_images(model, processor, images, readers=readers, **options)
    assert [reading.text for reading in together] == [reading.text for reading in alone]
    assert [reading.characters for reading in together] == [reading.characters for reading in alone]
    assert [reading.score for reading in together] == pytest.approx([reading.score for reading in alone], rel=1e-4)
