"""The image: what it holds, and how it starts."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

from tests.project.test_frame import ROOT, product_files


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def copied() -> set[Path]:
    """The files and folders of the tree that the image holds, for each of which there must be one."""
    paths: set[Path] = set()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                found = set(ROOT.glob(source))
                assert found, f"the Dockerfile copies {source}, which is not in the tree"
                paths |= found
    return paths


def test_the_image_holds_the_product_and_no_tests() -> None:
    paths = copied()
    for file in product_files():
        assert file in paths or ROOT / file.relative_to(ROOT).parts[0] in paths, f"the Dockerfile forgets {file}"
    assert not paths & {ROOT / "tests", ROOT / "bench"}


def test_the_image_builder_is_sent_what_the_image_copies() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert rules[rules.index("*") - 1].startswith("#")
    sent = {path for rule in rules if rule.startswith("!") for path in ROOT.glob(rule[1:])}
    assert copied() <= sent


def test_the_image_starts_a_file_that_exists_as_a_user_who_is_not_root() -> None:
    last = dict(instructions())
    assert (ROOT / ast.literal_eval(last["CMD"])[-1]).is_file()
    assert last["USER"].partition(":")[0].isdecimal()
    assert last["USER"].partition(":")[0] != "0"
    assert last["VOLUME"] == "/data"
    assert "RECOLLECT_DATA_DIR=/data" in last["ENV"]
    assert "/healthz" in last["HEALTHCHECK"]


def test_the_health_check_is_a_program_that_compiles() -> None:
    check = dict(instructions())["HEALTHCHECK"]
    *_, program = ast.literal_eval(check[check.index("[") :])
    compile(program, "HEALTHCHECK", "exec")


def test_the_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter, "hadolint comes with requirements-dev.lock"
    lint = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (lint.stdout + lint.stderr, lint.returncode) == ("", 0)
