"""An installed benchmark is one package, whatever else the folder it is used in holds."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build in a copy: setuptools leaves a folder that the next wheel would be made from, too."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("benchmark", "methods", "models"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True)
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([*pip_wheel, "--no-deps", "--no-build-isolation", str(copy)], check=True)
    (file,) = folder.glob("*.whl")
    return file


def test_wheel_holds_one_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"benchmark"}
    sources = {
        (Path(folder) / name).relative_to(ROOT).as_posix()
        for folder, _, files in os.walk(ROOT / "benchmark", followlinks=True)
        for name in files
        if name.endswith(".py")
    }
    assert {name for name in names if name.endswith(".py")} == sources
    assert "benchmark/assets/cifar100-teacher.safetensors" in names
    assert "benchmark/assets/fashion-mnist-teacher.safetensors" in names
    assert "benchmark/assets/LICENSE-fashion-mnist" in names
    assert "benchmark/assets/page/page.html" in names
    assert "benchmark/py.typed" in names


def test_foreign_packages_of_the_same_names_do_no_harm(wheel, tmp_path):
    installed = tmp_path / "site-packages"
    zipfile.ZipFile(wheel).extractall(installed)
    work = tmp_path / "work"
    for name in ("methods", "models", "tests"):
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text("raise ImportError('somebody else')\n")
    result = subprocess.run(
        [sys.executable, "-m", "benchmark", "list", "methods"],
        cwd=work,
        env={"PYTHONPATH": str(installed), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "krr-st" in result.stdout
