"""`hf-ocr read` on real files with a real (tiny) recognizer; each damage on a copy of its own."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from tiny_recognizer import lines, tiny_recognizer
from transformers import pipeline

import hf_ocr
from hf_ocr.cli import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model, processor = tiny_recognizer()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint):
    """name: result of the pipeline, for the three images of the folder `images`."""
    read = pipeline("text-recognition", model=str(checkpoint))
    return {
        f"{index}.png": read(image, return_scores=True, return_boxes="word")[0] for index, image in enumerate(lines(3))
    }


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of three images, the working directory of the test."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(lines(3)):
        image.save(folder / f"{index}.png")
    monkeypatch.chdir(folder)
    return folder


def run(capsys, checkpoint, *arguments):
    status = main(["read", *map(str, arguments), "--model", str(checkpoint)])
    return status, *capsys.readouterr()


def test_one_image_gives_its_text_alone(capsys, checkpoint, images, expected):
    status, out, err = run(capsys, checkpoint, "1.png")
    assert (status, err) == (0, "")
    assert out == expected["1.png"]["generated_text"] + "\n"
    assert len({result["generated_text"] for result in expected.values()}) == 3, "texts that cannot be confused"


def test_many_images_give_name_tab_text_in_the_order_given(capsys, checkpoint, images, expected):
    status, out, _ = run(capsys, checkpoint, "2.png", "0.png", "2.png", "--batch-size", 2)
    assert status == 0
    names = ["2.png", "0.png", "2.png"]
    assert out.splitlines() == [f"{name}\t{expected[name]['generated_text']}" for name in names]


def test_folders_and_globs_are_taken_and_other_files_left(capsys, checkpoint, images):
    (images / "notes.txt").write_text("no image")
    (images / ".hidden.png").write_text("no image")
    (images / "below").mkdir()
    lines(1)[0].save(images / "below" / "A.JPG")

    def names(*arguments):
        status, out, err = run(capsys, checkpoint, *arguments)
        assert (status, err) == (0, "")
        return [line.split("\t")[0] for line in out.splitlines()]

    below = os.path.join("below", "A.JPG")
    assert names(".") == ["0.png", "1.png", "2.png", below]
    assert names("[12].png") == ["1.png", "2.png"]
    assert names("**/*.[pJ][nP]*") == ["0.png", "1.png", "2.png", below]
    assert names("bel*", "0.png") == [below, "0.png"]


def test_a_name_breaks_neither_lines_nor_columns(capsys, checkpoint, images, expected):
    os.rename("1.png", "a\tb\n  c.png")
    status, out, _ = run(capsys, checkpoint, "0.png", "a\tb\n  c.png")
    texts = [expected[name]["generated_text"] for name in ("0.png", "1.png")]
    assert status == 0 and out.splitlines() == [f"0.png\t{texts[0]}", r"a\tb\n  c.png" + f"\t{texts[1]}"]


def test_scores_and_boxes_come_when_asked_for(capsys, checkpoint, images, expected):
    result = expected["2.png"]
    assert result["words"], "the tiny recognizer must read words here"
    _, out, _ = run(capsys, checkpoint, "2.png", "--scores")
    assert out == f"{result['generated_text']}\t{result['score']:.4f}\n"
    _, out, _ = run(capsys, checkpoint, "2.png", "--boxes")
    first, *words = out.splitlines()
    assert first == result["generated_text"]
    assert words == [
        "\t" + ",".join(f"{side:.0f}" for side in word["box"]) + "\t" + word["text"] for word in result["words"]
    ]


def test_json_is_one_object_a_line_with_what_was_asked_for(capsys, checkpoint, images, expected):
    (images / "empty.png").touch()
    status, out, err = run(capsys, checkpoint, "0.png", "empty.png", "1.png", "--json")
    first, failed, last = map(json.loads, out.splitlines())
    assert status == 1
    assert first == {"image": "0.png", "text": expected["0.png"]["generated_text"]}
    assert last == {"image": "1.png", "text": expected["1.png"]["generated_text"]}
    assert failed["image"] == "empty.png" and failed["text"] is None and "empty" in failed["error"]
    assert "empty.png" in err

    _, out, _ = run(capsys, checkpoint, "2.png", "--json", "--scores", "--boxes")
    record = json.loads(out)
    assert record["score"] == pytest.approx(expected["2.png"]["score"])
    words = expected["2.png"]["words"]
    assert [(word["text"], word["score"]) for word in record["words"]] == [
        (word["text"], word["score"]) for word in words
    ]
    assert [word["box"] for word in record["words"]] == [pytest.approx(word["box"], abs=0.01) for word in words]
    _, out, _ = run(capsys, checkpoint, "2.png", "--json", "--boxes")
    record = json.loads(out)
    assert "score" not in record and all(word.keys() == {"text", "box"} for word in record["words"])


def _truncated_jpeg():
    buffer = io.BytesIO()
    lines(1)[0].save(buffer, "JPEG")
    return buffer.getvalue()[:-200]


def _png(width, height):
    buffer = io.BytesIO()
    Image.new("1", (width, height), 1).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", _truncated_jpeg(), b"this is no image", _png(1, 1), _png(50_000, 32), _png(10, 30_000), _png(30_000, 30_000)],
    ids=["empty", "truncated", "text", "1x1", "long line", "high", "bomb"],
)
def test_a_bad_file_is_named_and_the_others_are_read(capsys, checkpoint, images, expected, content):
    (images / "bad.png").write_bytes(content)
    status, out, err = run(capsys, checkpoint, "0.png", "bad.png", "1.png")
    assert status == 1
    assert out.splitlines() == [f"{name}\t{expected[name]['generated_text']}" for name in ("0.png", "1.png")]
    assert err.startswith("hf-ocr: ") and "bad.png" in err and err.count("\n") == 1 and "Traceback" not in err


def test_what_is_not_there_is_named_and_the_others_are_read(capsys, checkpoint, images, expected):
    (images / "bare").mkdir()
    status, out, err = run(capsys, checkpoint, "missing.png", "bare", "*.tif", "1.png")
    assert status == 1
    assert out == f"1.png\t{expected['1.png']['generated_text']}\n"
    missing, bare, pattern = err.splitlines()
    assert "missing.png: no such file" in missing
    assert "bare: no images in this folder" in bare
    assert "*.tif: no file matches" in pattern


def test_a_pipe_is_no_folder(capsys, checkpoint, images):
    os.mkfifo(images / "pipe.png")
    status, _, err = run(capsys, checkpoint, "pipe.png")
    assert status == 1 and "pipe.png" in err and "is not a regular file" in err


def test_nothing_to_read_needs_no_model(capsys, images):
    assert main(["read", "missing.png", "--model", "missing"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_an_impossible_batch_size_is_a_usage_error(capsys, images, number):
    with pytest.raises(SystemExit, match="2"):
        main(["read", "0.png", "--batch-size", number])
    assert "--batch-size" in capsys.readouterr().err


def test_a_name_that_is_no_text_keeps_its_bytes(capfdbinary, checkpoint, images, monkeypatch):
    name = os.fsdecode(b"sch\xf6n.png")
    try:
        os.rename("0.png", name)
    except OSError:
        pytest.skip("this file system takes text only")
    sys.stdout.reconfigure(encoding="ascii", errors="strict")
    status, out, err = run(capfdbinary, checkpoint, ".")
    assert (status, err) == (0, b"")
    assert out.splitlines()[-1].startswith(b"sch\xf6n.png\t")
    _, out, _ = run(capfdbinary, checkpoint, ".", "--json")
    assert json.loads(out.splitlines()[-1])["image"] == name


def test_a_bar_is_shown_on_a_terminal_alone(capsys, checkpoint, images, monkeypatch):
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with open(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        status, out, _ = run(capsys, checkpoint, "0.png", "1.png")
        terminal.flush()
        assert "2/2" in os.read(ours, 65536).decode()
    os.close(ours)
    assert status == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["0.png", "1.png"]
    assert "\r" not in out


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(checkpoint, images):
    """In a process of its own, since Python complains of a closed pipe when it exits."""
    arguments = [sys.executable, "-m", "hf_ocr.cli", "read", *["0.png"] * 5, "--batch-size", "1", "--model", checkpoint]
    environment = os.environ | {"PYTHONPATH": str(Path(hf_ocr.__file__).parents[1])}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_the_shipped_checkpoint_reads_a_printed_line(capsys, tmp_path):
    image = Image.new("L", (330, 44), 255)
    ImageDraw.Draw(image).text((8, 4), "TOTAL 12.50", fill=0, font=ImageFont.load_default(30))
    image.save(tmp_path / "line.png")
    assert main(["read", str(tmp_path / "line.png")]) == 0
    assert capsys.readouterr().out == "TOTAL 12.50\n"
