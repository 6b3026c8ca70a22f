"""Write constraints.txt from the packages installed in a virtual environment (``make constraints``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEADER = """\
# Exact versions that the project was tested with. torch is listed without a local version, so that a CPU build is
# taken where pip finds one. Regenerate: make constraints
"""


def main() -> None:
    """Freeze the environment given as the only argument."""
    python = Path(sys.argv[1]) / "bin" / "python"
    frozen = subprocess.run(  # noqa: S603 - the python of our own environment
        [python, "-m", "pip", "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    lines = sorted(line.split("+", 1)[0] for line in frozen if "==" in line)
    (Path(__file__).parents[1] / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
