"""`hf-ocr read --output`: what it takes, what it refuses, and runs of one process and two that are killed for real."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from killing import kill_all
from pyarrow import parquet
from tiny_recognizer import lines, tiny_recognizer
from transformers import pipeline

import hf_ocr
from hf_ocr.cli import main

COUNT = 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model, processor = tiny_recognizer()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with images below, one of them broken, and one that is none."""
    folder = tmp_path_factory.mktemp("images") / "below"
    folder.mkdir()
    for number, image in enumerate(lines(COUNT)):
        image.save(folder / f"{number:02}.png")
    (folder / "07.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    return folder.parent


@pytest.fixture(scope="module")
def expected(checkpoint, images):
    """(name, text) in the order of the names."""
    read = pipeline("text-recognition", model=str(checkpoint))
    names = sorted(map(str, images.rglob("*.png")))
    return [
        (name, result["generated_text"]) for name, [result] in zip(names, read(names, on_error="skip"), strict=True)
    ]


def rows(folder):
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def texts(folder):
    return [(row["name"], row["text"]) for row in rows(folder)]


def run(checkpoint, *arguments):
    return main(["read", *map(str, arguments), "--model", str(checkpoint)])


def write_parquet(images, path, numbers):
    content = [
        {"bytes": (images / "below" / f"{number:02}.png").read_bytes(), "path": str(number)} for number in numbers
    ]
    parquet.write_table(pa.table({"image": content}), path)


def test_a_folder_of_images_is_read_and_a_broken_one_has_its_error_in_its_row(
    capsys, checkpoint, images, expected, tmp_path
):
    assert run(checkpoint, images, "--output", tmp_path / "out") == 0
    said = f"{tmp_path / 'out'}: {COUNT - 1} images read, 1 not: see the column error\n"
    assert capsys.readouterr() == (said, "")
    assert run(checkpoint, images, "--output", tmp_path / "out") == 0
    assert capsys.readouterr() == (f"{tmp_path / 'out'}: 0 images read\n", "")
    assert texts(tmp_path / "out") == expected
    found = rows(tmp_path / "out")
    assert "is empty" in found[7]["error"] and sum(row["error"] is not None for row in found) == 1
    assert all(0 <= row["score"] <= 1 for row in found if row["error"] is None)
    assert any(row["words"] for row in found)


def test_parquet_files_come_by_name_pattern_and_folder(capsys, checkpoint, images, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("set/deep")
    write_parquet(images, "set/b.parquet", range(4, 9))
    write_parquet(images, "set/deep/a.parquet", range(4))
    for output, arguments in (
        ("one", ["set/deep/a.parquet", "set/b.parquet"]),
        ("two", ["set/**/a.parquet", "set/b.*"]),
        ("set/three", ["set/deep", "set"]),
    ):
        assert run(checkpoint, *arguments, "--output", output) == 0, capsys.readouterr()
        again = list(range(4)) if output == "set/three" else []
        found = [(int(name), text) for name, text in texts(Path(output))]
        assert sorted(found) == sorted((number, expected[number][1]) for number in [*range(9), *again])
    # What is written into the folder that is read is no part of it.
    assert run(checkpoint, "set/deep", "set", "--output", "set/three") == 0
    assert run(checkpoint, "set/deep", "--split", "train", "--output", "split") == 0
    assert [name for name, _ in texts(Path("split"))] == list("0123")


def test_shards_beside_the_images_are_no_images(capsys, checkpoint, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("scans")
    (tmp_path / "scans" / "a.png").write_bytes((images / "below" / "00.png").read_bytes())
    for output in ("scans/old", "scans/new"):
        assert run(checkpoint, "scans", "--output", output) == 0, capsys.readouterr()
        assert [name for name, _ in texts(Path(output))] == [os.path.join("scans", "a.png")]


def test_brackets_in_the_name_of_a_file_are_no_pattern(capsys, checkpoint, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_parquet(images, "train[0].parquet", range(2))
    assert run(checkpoint, "train[0].parquet", "--output", "out") == 0, capsys.readouterr()
    assert [name for name, _ in texts(Path("out"))] == ["0", "1"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.png", "a.png"], "missing.png: no such file or folder"),
        (["*.tif"], "*.tif: no file matches"),
        (["no/such-set"], "no/such-set: cannot be read as a data set"),
        (["a.parquet", "a.png"], "a.parquet, a.png: parquet files and others"),
        (["a.parquet", "--image-column", "scan"], "a.parquet: no column 'scan', it has image"),
        (["a.parquet", "--split", "test"], "Choose one of train"),
    ],
)
def test_what_cannot_be_read_ends_the_command_before_it_begins(
    capsys, checkpoint, images, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes((images / "below" / "00.png").read_bytes())
    write_parquet(images, "a.parquet", range(2))
    assert run(checkpoint, *arguments, "--output", "out") == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hf-ocr: ") and err.count("\n") == 1 and message in err
    assert not (tmp_path / "out").exists()


def test_another_checkpoint_does_not_go_on(capsys, checkpoint, images, tmp_path):
    other = tmp_path / "other"
    model, processor = tiny_recognizer(seed=1)
    model.save_pretrained(other)
    processor.save_pretrained(other)
    image = images / "below" / "00.png"
    assert run(checkpoint, image, "--output", tmp_path / "out") == 0
    assert run(other, image, "--output", tmp_path / "out") == 1
    assert "come from another run (model " in capsys.readouterr().err


def command(checkpoint, images, output, processes):
    launch = []
    if processes > 1:
        launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    arguments = ["hf_ocr.cli", "read", str(images), "--output", str(output), "--model", str(checkpoint)]
    return [sys.executable, "-m", *launch, *arguments, "--shard-size", "2", "--batch-size", "1"]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(hf_ocr.__file__).parents[1])}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [[2, 2], [2, 1], [1, 2]], ids=str)
def test_killed_runs_lose_and_double_nothing(checkpoint, images, expected, tmp_path, processes):
    """All but the last are killed, every process of them at once, in the midst of their shards."""
    for number, count in enumerate(processes[:-1], 1):
        process = subprocess.Popen(
            command(checkpoint, images, tmp_path, count),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        limit = time.monotonic() + 300
        while len(list(tmp_path.glob("*.parquet"))) < 6 * number:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < limit
            time.sleep(0.001)
        kill_all(process)
    before = {path.name: path.stat().st_ino for path in tmp_path.glob("*.parquet")}
    assert 6 <= len(before) < COUNT // 2
    done = subprocess.run(
        command(checkpoint, images, tmp_path, processes[-1]),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert texts(tmp_path) == expected
    assert before.items() <= {path.name: path.stat().st_ino for path in tmp_path.glob("*.parquet")}.items()
    assert {path.name[0] for path in tmp_path.iterdir()} == {"0", "_"}, "nothing half-written is left"
