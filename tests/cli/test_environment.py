"""`scripts/environment`, which makes the environments of the two commands: with an interpreter that writes down what it
is asked, since the real installation takes minutes and a network."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")

INTERPRETER = """#!{bash}
case "$*" in
    *version_info*) exit ${{TOO_OLD:-0}} ;;
    *ensurepip*) exit ${{NO_VENV:-0}} ;;
    --version) echo Python 3.11.0 ;;
    "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python"; echo "$*" >>"$LOG" ;;
    *find_spec*) exit ${{NO_TORCH:-1}} ;;
    *2.13.0+cpu*) echo "$*" >>"$LOG"; exit ${{NO_CPU_BUILD:-0}} ;;
    *install*) echo "$*" >>"$LOG" ;;
esac
"""


@pytest.fixture
def prepare(tmp_path):
    """Runs `prepare_environment "[dev]"` in a folder with the script; gives status, stderr and what was asked."""
    repository = tmp_path / "repository"
    (repository / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment", repository / "scripts")
    (repository / "pyproject.toml").write_text("first")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("cat", "cp", "mkdir"):
        (programs / name).symlink_to(shutil.which(name))
    log = tmp_path / "log"

    def run(with_python=True, **environment):
        python = programs / "python3"
        if with_python:
            python.write_text(INTERPRETER.format(bash=BASH))
            python.chmod(0o755)
        log.write_text("")
        done = subprocess.run(
            [BASH, "-c", 'set -u; . scripts/environment; prepare_environment "[dev]" && echo "$venv_python"'],
            cwd=repository,
            env={"PATH": str(programs), "LOG": str(log), **environment},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr, log.read_text().splitlines()

    run.repository = repository
    return run


def test_the_cpu_build_and_the_package_are_installed_once(prepare):
    status, _, asked = prepare()
    assert status == 0
    assert asked == [
        "-m venv --clear .venv",
        "-m pip install --quiet torch==2.13.0+cpu",
        "-m pip install --quiet --editable .[dev]",
    ]
    assert prepare() == (0, "", [])
    (prepare.repository / "pyproject.toml").write_text("second")
    assert prepare(NO_TORCH="0")[2] == ["-m pip install --quiet --editable .[dev]"]


def test_the_environment_may_lie_elsewhere(prepare, tmp_path):
    assert prepare(HF_OCR_VENV=str(tmp_path / "elsewhere"))[2][0] == f"-m venv --clear {tmp_path / 'elsewhere'}"


def test_without_the_cpu_build_the_default_one_is_taken_and_said(prepare):
    status, err, asked = prepare(NO_CPU_BUILD="1")
    assert status == 0
    assert asked[2] == "-m pip install --quiet torch>=2.6"
    assert "installing the default build instead" in err


def test_no_python_old_python_and_python_without_venv_are_said(prepare):
    for environment in ({"with_python": False}, {"TOO_OLD": "1"}):
        status, err, asked = prepare(**environment)
        assert (status, asked) == (1, [])
        assert "No Python 3.11 or newer" in err
    status, err, _ = prepare(NO_VENV="1")
    assert status == 1
    assert "apt install python3-venv" in err
    status, err, _ = prepare(PYTHON="python2")
    assert status == 1
    assert "PYTHON=python2: not a Python 3.11 or newer" in err


def test_a_failed_installation_is_tried_again(prepare):
    broken = INTERPRETER.replace('*install*) echo "$*" >>"$LOG" ;;', "*install*) exit 1 ;;")
    prepare()
    (prepare.repository / "pyproject.toml").write_text("third")
    python = prepare.repository / ".venv" / "bin" / "python"
    python.write_text(broken.format(bash=BASH))
    assert prepare(NO_TORCH="0")[0] == 1
    python.write_text(INTERPRETER.format(bash=BASH))
    assert prepare(NO_TORCH="0")[2] == ["-m pip install --quiet --editable .[dev]"]


@pytest.mark.parametrize("name", ["scripts/environment", "scripts/test", "scripts/try", ".ci/run"])
def test_bash_understands_the_script(name):
    done = subprocess.run([BASH, "-n", ROOT / name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
