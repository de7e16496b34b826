"""What a type checker tells those who use the package."""

import re
import subprocess
import sys

from helpers import PROJECT

USER = "tests/data/typed_user.py"


def test_a_type_checker_finds_the_mistakes_of_a_user_and_none_in_the_package(tmp_path):
    check = (sys.executable, "-m", "mypy", "--cache-dir", tmp_path, "--no-pretty", USER)
    result = subprocess.run(check, cwd=PROJECT, capture_output=True, text=True)
    found = re.findall(r"^(.+?):(\d+): error: ", result.stdout, re.MULTILINE)
    lines = (PROJECT / USER).read_text().splitlines()
    marked = [number for number, line in enumerate(lines, 1) if line.endswith("# error")]
    assert len(marked) >= 4
    assert found == [(USER, str(number)) for number in marked], result.stdout + result.stderr
