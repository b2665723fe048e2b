"""The .deb, built once as README has it."""

import subprocess
import sys
from pathlib import Path

import pytest
from documented import environment_of_a_user
from install import debian
from kernels import image


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := debian.what_is_missing():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("dist")
    # As README has it, but for the folder.
    command = ["make", "-s", "deb", f"VENV={sys.prefix}", f"ARGS=--arch amd64 --output {folder}"]
    subprocess.run(command, cwd=image.ROOT, env=environment_of_a_user(), check=True)
    [built] = folder.glob("*.deb")
    return built
