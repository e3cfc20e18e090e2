"""What `make lab` hands to JupyterLab, read off without running it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def lab_command(lab_args):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    done = subprocess.run(
        ["make", "--dry-run", "lab", f"LAB_ARGS={lab_args}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # One line: below another make, this one also says which folder it enters and leaves.
    return done.stdout.replace("\\\n", " ").partition("/jupyter-lab ")[2].splitlines()[0].split()


def test_it_listens_on_this_machine_alone():
    words = lab_command("--no-browser")
    assert "--ServerApp.ip=localhost" in words
    assert "--KernelManager.transport_encryption=auto" in words
    assert words[-1] == "--no-browser"


@pytest.mark.parametrize("option", ["--ip=0.0.0.0", "--ServerApp.ip=0.0.0.0"])
def test_another_address_takes_its_place(option):
    """JupyterLab stops where an option comes twice."""
    assert [word for word in lab_command(f"--no-browser {option}") if "ip=" in word] == [option]
