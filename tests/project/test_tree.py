"""The commands of the Makefile and CI, and what no tracked file may hold."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.test_frame import ROOT


def make(folder: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.lock").touch()
    program = shutil.which("make")
    assert program
    return subprocess.run(
        [program, *arguments], cwd=folder, env={"PATH": path}, capture_output=True, text=True, check=False
    )


def test_a_machine_without_a_fitting_python_is_told_so_in_one_line(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("python3", "python3.12"):  # as a pyenv shim of a version that is not selected
        (programs / name).write_text("#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
        (programs / name).chmod(0o755)
    result = make(tmp_path, "install", path=str(programs))
    assert result.returncode == 2
    assert result.stdout == ""
    told, end = result.stderr.splitlines()
    assert told.startswith("Recollect needs Python 3.11 or later")
    assert end.startswith("make: ***")


COMMANDS = ["serve", "install", "test", "check", "bench", "torture", "abuse", "simulate", "contract", "image", "sbom"]
COMMANDS += ["lock", "clean"]


@pytest.mark.parametrize("target", COMMANDS)
def test_every_command_is_there(target: str, tmp_path: Path) -> None:
    (tmp_path / "requirements-dev.lock").touch()
    result = make(tmp_path, "--dry-run", target, path="")
    assert (result.returncode, result.stderr) == (0, "")


def test_ci_runs_the_tests_and_nothing_after_them() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "exec make test"
    subprocess.run(["bash", "-n", script], check=True)


# --- what no file may hold

# Written so that this file does not match itself.
UNWANTED = {
    "a package index or a place of downloads": re.compile(
        r"[p]ypi\.org|[p]ythonhosted\.org|[r]egistry\.(npmjs|yarnpkg)|[d]ownload\.pytorch|[h]uggingface\.co"
        r"|[u]npkg\.com|[j]sdelivr\.net|[r]aw\.githubusercontent|[r]eleases/download"
    ),
    "a place on one developer's machine": re.compile(
        r"(?<![\w./])/(?:[r]oot|[w]ork|[h]ome/\w+|[U]sers/\w+)/|/[t]mp/v\b"
    ),
    "a private key": re.compile(r"-----[B]EGIN [A-Z ]*PRIVATE KEY"),
}


def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files are tracked")
    listing = [git, "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_holds_what_belongs_to_one_machine_or_one_index() -> None:
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        for what, pattern in UNWANTED.items():
            found = [match.group() for match in pattern.finditer(text)]
            assert not found, f"{path.relative_to(ROOT)} holds {what}"


def test_no_data_key_or_environment_is_tracked() -> None:
    for path in tracked():
        assert path.relative_to(ROOT).parts[0] not in ("data", ".venv")
        assert path.suffix not in (".key", ".pem")
        assert path.name != ".env"
