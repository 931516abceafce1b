"""Throughput of `BatchReader` in Ray Data with one worker and two, beside the plain loop, and a worker killed midway.

    pip install -e ".[train,ray]"
    python scripts/benchmark_ray.py --data sroie_lines/test.parquet --output ray.json

The narrowest lines of a parquet file (column `image`) are repeated to `--lines` rows in files of 1,000. Every reader
goes from files to texts with one thread a worker. With Ray the clock also covers the start of the workers, each of
which loads the model. In a last run with two workers one is killed (SIGKILL) after a third of the rows: Ray starts it
anew. Every run must give each row once, with the text of the plain loop. The record holds machine, versions, figures.
"""

import argparse
import io
import json
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from PIL import Image

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

from hf_ocr.batch_reading import BatchReader
from hf_ocr.record import hardware, versions

NARROWEST = 1000
ROWS_A_FILE = 1000
ROWS_A_BLOCK = 500  # Ray would join files as small as these, and give one worker all of it
BATCH = 250
OBJECT_STORE = 512 * 2**20  # bytes


class SignedReader(BatchReader):
    """Says with each row which process read it."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        columns = super().__call__(batch)
        return columns | {"pid": [os.getpid()] * len(columns["text"])}


def write_lines(source: Path, folder: Path, count: int) -> None:
    """`count` rows id, image (encoded bytes) of the narrowest lines, in files of ROWS_A_FILE."""

    def aspect(content: bytes) -> float:
        with Image.open(io.BytesIO(content)) as image:
            return image.width / image.height

    images = parquet.read_table(source, columns=["image"]).column("image").to_pylist()
    narrow = sorted((image["bytes"] for image in images), key=aspect)[:NARROWEST]
    for first in range(0, count, ROWS_A_FILE):
        ids = range(first, min(first + ROWS_A_FILE, count))
        table = pa.table({"id": pa.array(ids), "image": [narrow[number % len(narrow)] for number in ids]})
        parquet.write_table(table, folder / f"{first:08}.parquet")


def plain_loop(folder: Path) -> dict[int, str]:
    """{id: text}, batch after batch in this process."""
    read, texts = BatchReader(keep=["id"]), {}
    for path in sorted(folder.iterdir()):
        for batch in parquet.ParquetFile(path).iter_batches(BATCH):
            columns = read(batch.to_pydict())
            texts.update(zip(columns["id"], columns["text"], strict=True))
    return texts


def with_ray(folder: Path, workers: int, kill_after: int | None = None) -> tuple[list[tuple[int, str]], int]:
    """(id, text) of every row that came, and how many processes read; one is killed after this many rows."""
    import ray

    rows = ray.data.read_parquet(str(folder)).repartition(target_num_rows_per_block=ROWS_A_BLOCK)
    rows = rows.map_batches(
        SignedReader,
        fn_constructor_kwargs={"keep": ["id"]},
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=0.5,  # of the two: the tasks that read files need one
    )
    found, pids = [], set()
    for batch in rows.iter_batches(batch_size=None, prefetch_batches=0):
        found += zip(map(int, batch["id"]), map(str, batch["text"]), strict=True)
        pids.update(map(int, batch["pid"]))
        if kill_after is not None and len(found) >= kill_after:
            os.kill(int(batch["pid"][-1]), signal.SIGKILL)
            kill_after = None
    if kill_after is not None:
        raise RuntimeError(f"{len(found)} rows came, none was left to read after {kill_after}. Give more --lines.")
    return found, len(pids)


def compare(folder: Path, lines: int) -> dict[str, Any]:
    """Lines a second and processes that read, for each way; raises RuntimeError where a row is lost, doubled, other."""
    results = {}
    start = time.perf_counter()
    expected = plain_loop(folder)
    results["plain loop"] = {"lines_per_second": lines / (time.perf_counter() - start), "processes": 1}
    for title, workers, kill_after in (
        ("1 worker", 1, None),
        ("2 workers", 2, None),
        ("2 workers, one killed", 2, lines // 3),
    ):
        start = time.perf_counter()
        found, processes = with_ray(folder, workers, kill_after)
        results[title] = {"lines_per_second": lines / (time.perf_counter() - start), "processes": processes}
        if sorted(found) != sorted(expected.items()):
            different = sum(expected.get(number) != text for number, text in found)
            raise RuntimeError(f"{title}: {len(found)} rows for {lines}, {different} of them with another text.")
        if processes < workers:
            raise RuntimeError(f"{title}: {processes} process read all of it. Give more --lines.")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="parquet file with a column `image`")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="where the record goes")
    parser.add_argument("--lines", type=int, default=20_000, metavar="N")
    options = parser.parse_args()
    try:
        import ray  # of an extra: --help does without
    except ImportError as error:
        raise SystemExit('ray is not installed: pip install -e ".[ray]"') from error
    torch.set_num_threads(1)
    ray.init(
        num_cpus=2,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _system_config={"worker_niceness": 0},  # by default 15, which on a busy machine would compare niceness
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as folder:
        write_lines(options.data, Path(folder), options.lines)
        results = compare(Path(folder), options.lines)
    ray.shutdown()
    record = {
        "lines": options.lines,
        "results": results,
        "hardware": hardware(),
        "versions": versions() | {"ray": metadata.version("ray")},
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for title, result in results.items():
        print(f"{title:<24} {result['lines_per_second']:8.1f} lines a second, {result['processes']} processes")


if __name__ == "__main__":
    main()
