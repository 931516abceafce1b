"""`hf-ocr bundle`."""

import pytest
from tiny_recognizer import tiny_recognizer

from hf_ocr.bundle import save_bundle
from hf_ocr.cli import main


@pytest.fixture
def checkpoint(tmp_path):
    return save_bundle(*tiny_recognizer(), tmp_path / "checkpoint")


@pytest.mark.slow
def test_the_folder_is_written_and_checked(capsys, checkpoint, tmp_path):
    capsys.readouterr()
    assert main(["bundle", str(checkpoint), str(tmp_path / "folder")]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{tmp_path / 'folder'}: 0.") and "with this package and without it" in output.out
    assert output.err == ""


def test_what_is_wrong_is_said_in_one_line(capsys, checkpoint, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "record.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for arguments, expected in (
        ([checkpoint, tmp_path / "file"], "is a file"),
        ([checkpoint, checkpoint], "is the checkpoint itself"),
        ([tmp_path / "empty", tmp_path / "folder"], "has no config.json"),
        (["me/absent", tmp_path / "folder"], "me/absent"),
        ([checkpoint, tmp_path / "folder", "--record", tmp_path / "record.json"], "entries unknown"),
        ([checkpoint, tmp_path / "folder", "--record", tmp_path / "absent.json"], "absent.json"),
    ):
        capsys.readouterr()
        assert main(["bundle", *map(str, arguments)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("hf-ocr: ") and expected in error and error.count("\n") == 1, error
    assert not (tmp_path / "folder").exists()
