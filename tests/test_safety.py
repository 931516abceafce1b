"""What a folder from elsewhere can do: be read, or be refused; not run code, not fill the memory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_recognizer import lines, tiny_recognizer
from transformers import AutoModelForTextRecognition

import hf_ocr
from hf_ocr.bundle import save_bundle
from hf_ocr.cli import main
from hf_ocr.models.modeling_text_recognition import CheckpointError


class Harmful:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return exec, (f"open({str(self.trace)!r}, 'w')",)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    save_bundle(*tiny_recognizer(), folder)
    lines(1)[0].save(folder / "line.png")
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "folder"))


def read(folder):
    return main(["read", str(folder / "line.png"), "--model", str(folder)])


def changed(path: Path, **entries):
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps(content))


PICKLES = ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pt", "vocab.pkl", "flax_model.msgpack")


def test_a_pickle_beside_the_weights_is_never_loaded(folder, tmp_path, capsys):
    for name in PICKLES:
        torch.save(Harmful(tmp_path / "trace"), folder / name)  # noqa: TID251  the attack
    assert read(folder) == 0
    AutoModelForTextRecognition.from_pretrained(folder)
    hf_ocr.CharacterTokenizer.from_pretrained(folder)
    hf_ocr.TextLineImageProcessor.from_pretrained(folder)
    assert not (tmp_path / "trace").exists()
    with pytest.raises(Exception):  # noqa: B017  the attack is one: what loads it runs it
        torch.load(folder / PICKLES[0], weights_only=True)  # noqa: TID251
    torch.load(folder / PICKLES[0], weights_only=False)  # noqa: TID251
    assert (tmp_path / "trace").exists()


def test_a_folder_with_pickled_weights_only_is_refused(folder, tmp_path, capsys):
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.bias": Harmful(tmp_path / "trace")}, folder / "pytorch_model.bin")  # noqa: TID251
    assert read(folder) == 1
    assert "has no weights. Expected model.safetensors" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"has no weights, expected model\.safetensors"):
        AutoModelForTextRecognition.from_pretrained(folder)
    assert not (tmp_path / "trace").exists()


def test_code_in_a_folder_of_ours_is_not_run_and_neither_is_that_of_a_stranger(folder, tmp_path, capsys):
    for code in folder.glob("*.py"):
        code.write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")
    assert read(folder) == 0  # the package has the class itself
    capsys.readouterr()
    changed(folder / "config.json", model_type="stranger")
    assert read(folder) == 1
    error = capsys.readouterr().err
    assert "comes with code of its own, which hf-ocr never runs" in error and ".py files" in error
    assert error.count("\n") == 1 and not (tmp_path / "trace").exists()


def test_the_code_in_a_folder_is_that_of_the_package_to_the_letter(good):
    models = Path(hf_ocr.__file__).parent / "models"
    names = {path.name for path in good.glob("*.py")}
    assert {"modeling_crnn.py", "setting_checks.py", "pipeline_text_recognition.py"} < names
    for name in names:
        assert (good / name).read_bytes() == (models / name).read_bytes(), name


@pytest.mark.parametrize("card", [b"---\nlicense: [\n---\n", b"\xff\xfe\x00", b"---\n" + b"- " * 10**5, b""])
def test_a_malformed_card_keeps_nobody_from_reading(card, folder, capsys):
    (folder / "README.md").write_bytes(card)
    assert read(folder) == 0


ATTACKS = """
import json, resource, struct, sys
from pathlib import Path
import hf_ocr
from hf_ocr.models.modeling_text_recognition import CheckpointError
from transformers import AutoModelForTextRecognition
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
folder = Path(sys.argv[1])
good = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors", "vocab.json")}
config = json.loads(good["config.json"])
size = struct.unpack("<Q", good["model.safetensors"][:8])[0]
header, body = json.loads(good["model.safetensors"][8:8 + size]), good["model.safetensors"][8 + size:]
name = next(key for key in header if key != "__metadata__")
entry = header[name]

AutoModelForTextRecognition.from_pretrained(folder)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2)


def load(**files):
    for file, content in {**good, **files}.items():
        (folder / file).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    hf_ocr.CharacterTokenizer.from_pretrained(folder)
    AutoModelForTextRecognition.from_pretrained(folder)


def weights(length=None, body=body, **entries):
    text = json.dumps({**header, name: {**entry, **entries}}).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


attacks = {
    "vocab_size is 1000000": {"config.json": {**config, "vocab_size": 10**6}},
    "lstm_hidden_size is 1000000000": {"config.json": {**config, "lstm_hidden_size": 10**9}},
    "num_lstm_layers is 100000": {"config.json": {**config, "num_lstm_layers": 10**5}},
    "parameters": {"config.json": {**config, "lstm_hidden_size": 4096}},
    "conv_strides[0] is -1": {"config.json": {**config, "conv_strides": [[-1, -1]] * 8}},
    "conv_channels is [": {"config.json": {**config, "conv_channels": [1] * 10**5}},
    "dropout is nan": {"config.json": {**config, "dropout": float("nan")}},
    "image_height is '32'": {"config.json": {**config, "image_height": "32"}},
    "fit config.json": {"config.json": {**config, "lstm_hidden_size": 500}},
    "has 300,000 entries": {"vocab.json": {"<pad>": 0, **{chr(0x10000 + i): i for i in range(1, 3 * 10**5)}}},
    "Expected at most 16,777,216": {"vocab.json": {"<pad>": 0, **{chr(0x10000 + i): i for i in range(1, 10**6)}}},
    "is not JSON": {"vocab.json": b"[" * 10**6},
    "are damaged": {"model.safetensors": weights(length=2**60)},
    "are damaged ": {"model.safetensors": weights(length=10**9)},
    "are damaged (": {"model.safetensors": weights(data_offsets=[0, 2**40])},
    "are damaged (E": {"model.safetensors": weights(data_offsets=[4, 4 + entry["data_offsets"][1]])},
    "are damaged (Er": {"model.safetensors": weights(shape=[2**31, 2**31])},
    "are damaged (Err": {"model.safetensors": weights(body=body[:-100])},
    "are damaged (Erro": {"model.safetensors": weights(body=body + bytes(100))},
    "are damaged (Error": {"model.safetensors": b""},
}
for expected, files in attacks.items():
    try:
        load(**files)
    except (ValueError, CheckpointError) as error:
        assert expected in str(error), (expected, str(error))
        assert len(str(error)) < 2000, expected
    else:
        raise AssertionError(f"{expected}: accepted")
load()
config = hf_ocr.CrnnConfig.from_dict({**config, "num_labels": 10**12, "id2label": {"5": "x"}})
assert config.num_labels == 2  # what transformers gives every configuration
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is bounded by what Linux has")
@pytest.mark.slow
def test_hostile_files_get_a_clear_error_within_bounded_memory(folder):
    done = subprocess.run([sys.executable, "-c", ATTACKS, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.splitlines()[-1]) < 400  # MB more than to load the checkpoint; the vocabulary is most of it
