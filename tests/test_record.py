import hashlib
import json
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import pytest
import torch

from hf_ocr.evaluation import Prediction, report_on
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.record import (
    DataSource,
    Result,
    RunRecord,
    Speed,
    describe_model,
    fingerprint,
    hardware,
    versions,
)
from hf_ocr.report import report_to_dict


@pytest.fixture
def record(tmp_path):
    data = tmp_path / "lines" / "train.parquet"
    data.parent.mkdir()
    data.write_bytes(b"abc")
    report = report_on([Prediction(0, "abc", "abd", 0.5, 90, 32), Prediction(1, "x", "x", 0.9, 32, 32)])
    return RunRecord(
        name="tiny",
        description="A tiny reader.",
        model={"family": "crnn", "parameters": 12, "alphabet": " aé€"},
        settings={"learning_rate": 1e-3, "sizes": (1, 2)},
        hours=0.5,
        hardware=hardware(),
        versions=versions(),
        training_data=(DataSource("lines", "train", 3, files=(fingerprint(data),)),),
        results=(Result("lines", "test", report_to_dict(report), files=(fingerprint(data),)),),
        results_before=(Result("lines", "test", report_to_dict(report)),),
        speed=(Speed("this model", "lines", 100.0, "lines/s"),),
        weights=(fingerprint(data),),
        languages=("en", "fr"),
        limits=("Only a, e and x.",),
    )


def test_save_and_load_give_the_same_record(record, tmp_path):
    path = record.save(tmp_path / "model_cards")
    assert path == tmp_path / "model_cards" / "tiny.json"
    assert RunRecord.load(path) == replace(record, settings={"learning_rate": 1e-3, "sizes": [1, 2]})


def test_what_is_unknown_is_left_out(record, tmp_path):
    content = json.loads(record.save(tmp_path).read_text(encoding="utf-8"))
    assert not {"steps", "created", "command", "load_as"} & set(content)
    assert content["model"]["alphabet"] == " aé€"
    assert content["training_data"][0]["num_lines"] == 3
    assert "licence" not in content["training_data"][0]


def test_settings_become_plain_values_without_the_folders_of_a_machine(record, tmp_path):
    @dataclass
    class Settings:
        output: Path
        source: Path
        steps: int = 5

    settings = Settings(tmp_path / "runs" / "first", Path("data/lines"))
    content = json.loads(replace(record, settings={"run": settings}).save(tmp_path).read_text(encoding="utf-8"))
    assert content["settings"]["run"] == {"output": "first", "source": "data/lines", "steps": 5}


def test_values_that_json_cannot_hold_are_refused_by_name(record, tmp_path):
    with pytest.raises(ValueError, match=r"record\.settings\.mean is .*\(Tensor\)"):
        replace(record, settings={"mean": torch.zeros(1)}).save(tmp_path)
    with pytest.raises(ValueError, match="NaN"):
        replace(record, hours=float("nan")).save(tmp_path)
    assert not (tmp_path / "tiny.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("name"), r"missing: \['name'\]"),
        (lambda c: c.update(accuracy=1.0), r"unknown: \['accuracy'\]"),
        (lambda c: c["training_data"][0]["files"][0].pop("sha256"), r"training_data: files: .* missing: \['sha256'\]"),
    ],
)
def test_a_file_that_is_no_record_is_refused(record, tmp_path, change, message):
    path = record.save(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        RunRecord.load(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is no JSON"):
        RunRecord.load(path)


def test_fingerprint_of_a_file(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"abc")
    found = fingerprint(path)
    assert found.name == f"{tmp_path.name}/lines.txt"
    assert found.size_bytes == 3
    assert found.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_fingerprint_of_a_folder_follows_names_and_contents(tmp_path):
    def folder(name, files):
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(content)
        return fingerprint(tmp_path / name)

    first = folder("a", {"x.txt": b"1", "deep/y.txt": b"22"})
    assert (first.name, first.size_bytes) == ("a", 3)
    assert folder("b", {"deep/y.txt": b"22", "x.txt": b"1"}).sha256 == first.sha256
    assert folder("c", {"x.txt": b"1", "deep/y.txt": b"23"}).sha256 != first.sha256
    assert folder("d", {"z.txt": b"1", "deep/y.txt": b"22"}).sha256 != first.sha256


def test_fingerprint_of_a_folder_leaves_out_what_a_file_manager_puts_there(tmp_path):
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a.png").write_bytes(b"1")
    before = fingerprint(tmp_path / "lines")
    for name in (".DS_Store", "Thumbs.db", ".git/index"):
        (tmp_path / "lines" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "lines" / name).write_bytes(b"22")
    assert fingerprint(tmp_path / "lines") == before


def test_fingerprint_has_the_name_and_not_that_of_a_blob(tmp_path):
    (tmp_path / "0a1b").write_bytes(b"abc")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").symlink_to(tmp_path / "0a1b")
    found = fingerprint(tmp_path / "model" / ".." / "model" / "weights")
    assert (found.name, found.size_bytes) == ("model/weights", 3)


def test_fingerprint_of_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        fingerprint(tmp_path / "absent.parquet")


def test_versions_and_hardware_are_those_of_this_process():
    found = versions()
    assert found["torch"] == metadata.version("torch")
    assert found["transformers"] == metadata.version("transformers")
    machine = hardware()
    assert machine["cores"] >= 1
    assert machine["cpu"]


def test_describe_model_counts_and_names():
    tokenizer = CharacterTokenizer.from_alphabet(" abé")
    model = CrnnForTextRecognition(CrnnConfig(vocab_size=5, num_channels=1)).half()
    processor = TextRecognitionProcessor(TextLineImageProcessor(height=32, max_width=999), tokenizer)
    found = describe_model(model, processor)
    assert found["family"] == "crnn"
    assert found["dtype"] == "float16"
    assert found["alphabet"] == " abé"
    assert found["input"] == {"height": 32, "min_width": 64, "max_width": 999, "num_channels": 1}
    # The classifier alone: 512 features and a bias for each of five symbols; its share in the count.
    other = describe_model(CrnnForTextRecognition(CrnnConfig(vocab_size=6)), processor)
    assert other["parameters"] - found["parameters"] == 513
