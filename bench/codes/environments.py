"""Virtual environments of the peers: ``python -m bench.codes.environments [NAME ...]`` (0.7 to 2 GB each, minutes).

They lie under ``.peers/`` (ignored by git), made from ``bench/codes/requirements/NAME.txt``: the peers pin versions
of numpy, pandas, torch and Opacus that cannot live beside ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

__all__ = ["ENVIRONMENTS", "python_of"]

ENVIRONMENTS = Path(__file__).parents[2] / ".peers"
REQUIREMENTS = Path(__file__).parent / "requirements"


def python_of(name: str) -> Path:
    """The interpreter of an environment; it need not exist."""
    return ENVIRONMENTS / name / "bin" / "python"


def main() -> None:
    known = sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without")
    arguments = parser.parse_args()
    strangers = set(arguments.names) - set(known)
    if strangers:
        parser.error(f"no requirements for {', '.join(sorted(strangers))}; there are {', '.join(known)}")
    for name in arguments.names or known:
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENTS / name)], check=True)
        pip = [str(python_of(name)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--requirement", str(REQUIREMENTS / f"{name}.txt")], check=True)
        print(f"{name}: ready in {ENVIRONMENTS / name}", flush=True)


if __name__ == "__main__":
    main()
