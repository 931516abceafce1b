"""`hf-ocr evaluate` on real files with real (tiny) models, whole, broken off and taken up again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value
from tiny_recognizer import lines, tiny_recognizer
from tiny_stock_models import tiny_trocr
from transformers import pipeline

import hf_ocr
from hf_ocr.cli import main
from hf_ocr.report import report_from_dict

NUM_LINES = 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model, processor = tiny_recognizer()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(checkpoint):
    """What the model reads."""
    read = pipeline("text-recognition", model=str(checkpoint))
    found = [result[0]["generated_text"] for result in read(lines(NUM_LINES))]
    assert sum(map(bool, found)) > NUM_LINES / 2, "the tiny recognizer must read something here"
    return found


def write(path, images, texts, **columns):
    features = {"image": Image(), "text": Value("string"), **{name: Value("string") for name in columns}}
    Dataset.from_dict({"image": images, "text": texts, **columns}, features=Features(features)).to_parquet(path)
    return path


@pytest.fixture
def data(tmp_path, texts):
    """All as the model reads it, save one letter more in the first line."""
    columns = {
        "document": [str(index // 4) for index in range(NUM_LINES)],
        "source": ["scan" if index < 15 else None for index in range(NUM_LINES)],
    }
    return write(tmp_path / "test.parquet", lines(NUM_LINES), [texts[0] + "z", *texts[1:]], **columns)


def run(capsys, data, checkpoint, *arguments):
    capsys.readouterr()  # what writing the data said
    status = main(["evaluate", str(data), "--model", str(checkpoint), *map(str, arguments)])
    return status, *capsys.readouterr()


def test_the_table_without_a_folder(capsys, data, checkpoint, texts):
    status, out, err = run(capsys, data, checkpoint)
    assert (status, err) == (0, "")
    assert "lines/s" in out
    assert f"{NUM_LINES} lines; 95 % percentile bootstrap over documents" in out
    letters = sum(map(len, texts)) + 1
    (cer,) = [row for row in out.splitlines() if row.startswith("CER  ")]
    assert f"{100 / letters:.2f} % [" in cer
    assert any(row.split()[:2] == ["scan", "15"] for row in out.splitlines())


def test_the_folder_gets_report_page_and_readings(capsys, data, checkpoint, texts, tmp_path):
    output = tmp_path / "evaluation"
    assert run(capsys, data, checkpoint, "--output", output, "--protocol", "36", "--seed", 3)[0] == 0
    (model,) = json.loads((output / "report.json").read_text(encoding="utf-8"))["models"]
    report = report_from_dict(model["report"])
    assert (report.protocol, report.seed, report.cer.count) == ("36", 3, 1)
    assert [line.prediction for line in report.predictions] == texts
    assert [(line.width, line.height) for line in report.predictions] == [image.size for image in lines(NUM_LINES)]
    assert {(line.document, line.source) for line in report.predictions[14:16]} == {("3", "scan"), ("3", None)}
    assert all(0 < line.score <= 1 for line in report.predictions)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "tiny on test.parquet" in page
    assert page.count("data:image/jpeg") == 1, "the crop of the line that is wrong"
    first, *kept = map(json.loads, (output / "readings.jsonl").read_text(encoding="utf-8").splitlines())
    assert first["model"]["name"] == "tiny" and first["data"][0]["sha256"]
    assert [entry["prediction"] for entry in kept] == texts


@pytest.mark.parametrize("rest", ["", '{"index": 7, "refer'])
def test_a_broken_run_goes_on_where_it_stopped(capsys, data, checkpoint, texts, tmp_path, rest):
    readings = tmp_path / "evaluation" / "readings.jsonl"
    run(capsys, data, checkpoint, "--output", readings.parent)
    whole = readings.read_text(encoding="utf-8").splitlines(keepends=True)
    # The first eight lines were written; of them the third tells that nobody reads it again.
    known = json.loads(whole[3]) | {"prediction": "kept"}
    readings.write_text("".join([*whole[:3], json.dumps(known) + "\n", *whole[4:8], rest]), encoding="utf-8")
    assert run(capsys, data, checkpoint, "--output", readings.parent)[0] == 0
    (model,) = json.loads((readings.parent / "report.json").read_text(encoding="utf-8"))["models"]
    read = [line["prediction"] for line in model["report"]["predictions"]]
    assert read == [*texts[:2], "kept", *texts[3:]]
    kept = [json.loads(line) for line in readings.read_text(encoding="utf-8").splitlines()[1:]]
    assert [entry["index"] for entry in kept] == list(range(NUM_LINES)), "none lost, none doubled"
    seconds = [entry["seconds"] for entry in kept]
    assert seconds == sorted(seconds), "the time of both runs counts"
    # All is read: the report is made anew, here in another form, from what there is.
    status, out, _ = run(capsys, data, checkpoint, "--output", readings.parent, "--protocol", "nfc")
    assert status == 0 and "white space as it is" in out


def test_readings_that_two_commands_wrote_are_refused(capsys, data, checkpoint, tmp_path):
    readings = tmp_path / "evaluation" / "readings.jsonl"
    run(capsys, data, checkpoint, "--output", readings.parent)
    first, *kept = readings.read_text(encoding="utf-8").splitlines(keepends=True)
    readings.write_text("".join([first, *kept, *kept]), encoding="utf-8")
    status, _, err = run(capsys, data, checkpoint, "--output", readings.parent)
    assert status == 1 and "two commands wrote to it at once" in err


def test_readings_of_another_version_are_refused(capsys, data, checkpoint, tmp_path):
    readings = tmp_path / "evaluation" / "readings.jsonl"
    run(capsys, data, checkpoint, "--output", readings.parent)
    first, rest = readings.read_text(encoding="utf-8").split("\n", 1)
    origin = json.loads(first)
    assert origin["versions"].keys() == {"hf-ocr", "torch", "transformers"}
    origin["versions"]["hf-ocr"] = "0.0.1"
    readings.write_text(f"{json.dumps(origin)}\n{rest}", encoding="utf-8")
    assert "this command reads in: versions." in run(capsys, data, checkpoint, "--output", readings.parent)[2]


def test_a_folder_that_cannot_be_made_is_named_in_one_line(capsys, data, checkpoint, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = run(capsys, data, checkpoint, "--output", tmp_path / "file" / "sub")
    assert status == 1 and err.startswith("hf-ocr: ") and str(tmp_path / "file") in err and err.count("\n") == 1


def test_another_model_or_other_data_is_refused(capsys, data, checkpoint, tmp_path):
    output = tmp_path / "evaluation"
    run(capsys, data, checkpoint, "--output", output)
    other = tmp_path / "other"
    model, processor = tiny_recognizer(seed=1)
    model.save_pretrained(other)
    processor.save_pretrained(other)
    status, _, err = run(capsys, data, other, "--output", output)
    assert status == 1
    assert "differs from what this command reads in: model. Name another" in err
    write(data, lines(2), ["a", "b"])
    assert "this command reads in: data." in run(capsys, data, checkpoint, "--output", output)[2]
    (output / "readings.jsonl").write_text("no JSON\n")
    assert "readings.jsonl: is damaged" in run(capsys, data, checkpoint, "--output", output)[2]


def test_a_stock_encoder_decoder_is_compared(capsys, data, checkpoint, tmp_path):
    stock = tiny_trocr(tmp_path / "trocr", lines(4), ["ab 1", "cd 2", "e 34", "fg"])
    output = tmp_path / "evaluation"
    status, out, _ = run(capsys, data, checkpoint, "--against", stock, "--output", output)
    assert status == 0
    assert "first: " in out and "second: " in out and "trocr" in out
    content = json.loads((output / "report.json").read_text(encoding="utf-8"))
    first, second = (report_from_dict(model["report"]) for model in content["models"])
    difference = content["differences"]["cer"]
    assert (difference["first"], difference["second"]) == (first.cer.value, second.cer.value)
    assert difference["value"] > 0 and 0 < difference["p_value"] <= 1
    assert [line.reference for line in second.predictions] == [line.reference for line in first.predictions]
    assert any(line.prediction for line in second.predictions)
    assert (output / "readings-against.jsonl").exists()


def test_a_broken_image_counts_as_read_empty_and_stops_nobody(capsys, checkpoint, texts, tmp_path):
    path = write(tmp_path / "test.parquet", [*lines(2), {"bytes": b"no image"}, None], [*texts[:2], "abc", "d"])
    status, out, err = run(capsys, path, checkpoint, "--output", tmp_path / "evaluation")
    assert status == 1
    assert "row 2: " in err and "row 3: " in err
    assert "4 lines" in out
    content = json.loads((tmp_path / "evaluation" / "report.json").read_text(encoding="utf-8"))
    (model,) = content["models"]
    assert model["unread"] == 2
    assert [line["prediction"] for line in model["report"]["predictions"]] == [*texts[:2], "", ""]


@pytest.mark.parametrize(
    ("texts", "arguments", "error"),
    [
        (["a", None], [], "1 rows have no text, the first is row 1"),
        (["", "!?"], ["--protocol", "62"], "the protocol 62 leaves nothing of the 2 texts"),
        (["a", "b"], ["--output", "lines/evaluation"], "lies in lines, which it would change"),
    ],
)
def test_what_makes_reading_worthless_is_said_before_it(
    capsys, checkpoint, tmp_path, monkeypatch, texts, arguments, error
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines").mkdir()
    write(tmp_path / "lines" / "test.parquet", lines(2), texts)
    status, out, err = run(capsys, "lines", checkpoint, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("hf-ocr: ") and error in err
    assert not (tmp_path / "lines" / "evaluation").exists()


def test_a_file_as_output_is_refused_before_reading(capsys, data, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = run(capsys, data, tmp_path / "no-such-model", "--output", tmp_path / "file")
    assert status == 1 and "file: is a file. Expected a folder" in err


def test_without_a_folder_nothing_is_hashed(capsys, data, checkpoint, monkeypatch):
    monkeypatch.setattr("hf_ocr.cli.evaluate.fingerprint", None)
    assert run(capsys, data, checkpoint)[0] == 0


def test_the_report_of_a_diverged_model_is_written(capsys, data, tmp_path):
    model, processor = tiny_recognizer()
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    for part in (model, processor):
        part.save_pretrained(tmp_path / "diverged")
    assert run(capsys, data, tmp_path / "diverged", "--output", tmp_path / "evaluation")[0] == 0
    (model,) = json.loads((tmp_path / "evaluation" / "report.json").read_text(encoding="utf-8"))["models"]
    assert {line["score"] for line in model["report"]["predictions"]} == {0.0}


def test_missing_data_is_one_line(capsys, checkpoint, tmp_path):
    status, _, err = run(capsys, tmp_path / "absent", checkpoint)
    assert status == 1
    assert "absent: no such file" in err and err.count("\n") == 1


def test_without_the_extra_the_command_is_there_and_says_what_to_install():
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['datasets', 'matplotlib', 'rapidfuzz'])); "
        "from hf_ocr.cli import main; sys.exit(main(['evaluate', 'lines']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == 'hf-ocr: matplotlib is not installed. Install it with pip install "hf-ocr[eval]".\n'


@pytest.mark.parametrize("written", ["", '{"model": {"na'], ids=["nothing", "half the header"])
def test_a_run_killed_before_its_first_line_is_begun_anew(capsys, data, checkpoint, texts, tmp_path, written):
    readings = tmp_path / "evaluation" / "readings.jsonl"
    readings.parent.mkdir()
    readings.write_text(written)
    assert run(capsys, data, checkpoint, "--output", readings.parent)[0] == 0
    first, *kept = map(json.loads, readings.read_text(encoding="utf-8").splitlines())
    assert first["model"]["name"] == "tiny"
    assert [entry["prediction"] for entry in kept] == texts


@pytest.mark.slow
def test_killed_runs_lose_double_and_change_nothing(capsys, checkpoint, tmp_path):
    """Killed for real, twice while the first model reads and once while the second does, in the midst of a window."""
    count, other, output = 200, tmp_path / "other", tmp_path / "killed"
    for part in tiny_recognizer(seed=1):
        part.save_pretrained(other)
    images = [*lines(count - 1), {"bytes": b"no image"}]
    data = write(tmp_path / "many.parquet", images, [f"line {index}" for index in range(count)])
    arguments = [str(data), "--model", str(checkpoint), "--against", str(other), "--batch-size", "2", "--output"]
    command = [sys.executable, "-m", "hf_ocr.cli", "evaluate", *arguments, str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(hf_ocr.__file__).parents[1])}
    first, second = output / "readings.jsonl", output / "readings-against.jsonl"
    before = {}
    for file, more in ((first, 10), (first, 80), (second, 40)):
        enough = count_lines(file) + more
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 300
        while count_lines(file) < enough:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < limit
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert enough <= count_lines(file) < count, "killed in the middle"
        before[file] = file.read_bytes()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.count(f"row {count - 1}: ") == 2, done.stderr[-3000:]
    assert main(["evaluate", *arguments, str(tmp_path / "unbroken")]) == 1
    for file, content in before.items():
        assert file.read_bytes().startswith(content[: content.rfind(b"\n") + 1]), "what was read stays as it was"
    for found, expected in zip(predictions(output), predictions(tmp_path / "unbroken"), strict=True):
        assert len({line["prediction"] for line in expected}) > count / 2
        assert found == [line | {"score": pytest.approx(line["score"], abs=1e-4)} for line in expected]


def count_lines(file):
    return file.read_bytes().count(b"\n") if file.exists() else 0


def predictions(output):
    """Of each model."""
    content = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return [model["report"]["predictions"] for model in content["models"]]
