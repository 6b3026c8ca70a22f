"""The frame of all three command lines: errors a person can act on, exit codes, one JSON document with ``--json``.

Exit codes: 0 done; 1 an error, or a ledger that is not valid; 2 a command line that cannot be understood; 130 stopped
with Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Final, NoReturn

import click
import typer
from rich.console import Console
from rich.text import Text

from synclave_shared.errors import ConfigurationError, SynclaveError

__all__ = ["EXIT_ERROR", "EXIT_INTERRUPTED", "JsonOption", "print_error", "print_json", "printable", "run", "show"]

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

INTERRUPTED: Final = SynclaveError(
    expected="the command to run to its end",
    found="Ctrl-C",
    remedy="Every process was stopped. Logs and complete rounds are kept; a run is resumed by the same command.",
)


def print_json(document: object) -> None:
    """Print one JSON document on standard output, in ASCII: any terminal and any reader can take it.

    Raises:
        ValueError: if it holds NaN or infinity, which are no JSON.
    """
    print(json.dumps(document, indent=2, allow_nan=False))


def show(document: object, as_json: bool, draw: Callable[[Console], None]) -> None:
    """Print what a command found out: as one JSON document, or as ``draw`` writes it for a person."""
    if as_json:
        print_json(document)
    else:
        draw(Console())


def printable(text: str) -> str:
    """``text`` on one line, with every control character written out: what others wrote must not steer a terminal."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def print_error(error: SynclaveError, *, as_json: bool) -> None:
    """Say what was expected, what was found and what to do; with ``as_json`` as a document on standard output."""
    if as_json:
        fields = {"code": error.code, "expected": error.expected, "found": error.found, "remedy": error.remedy}
        print_json({"error": fields})
        return
    text = Text()
    for label, value, style in (
        ("Expected:  ", error.expected, "red"),
        ("Found:     ", error.found, "red"),
        ("What to do:", error.remedy, "bold"),
    ):
        text.append(f"{label} {printable(value)}\n", style=style)
    Console(stderr=True).print(text, end="", soft_wrap=True)


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and leave the process.

    Args:
        app: the commands.
        arguments: without the program's name; the process's own by default.

    Raises:
        SystemExit: always.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        outcome = typer.main.get_command(app).main(args=given, prog_name=app.info.name, standalone_mode=False)
        sys.stdout.flush()
    except SynclaveError as error:
        print_error(error, as_json=as_json)
        sys.exit(EXIT_ERROR)
    except ModuleNotFoundError as error:
        if (error.name or "synclave").startswith("synclave"):
            raise
        print_error(_missing_package(error.name or ""), as_json=as_json)
        sys.exit(EXIT_ERROR)
    except click.ClickException as error:
        if as_json:
            print_error(_misunderstood(error), as_json=True)
        else:
            error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print_error(INTERRUPTED, as_json=as_json)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left; nothing more can be said, and the interpreter must not try at exit.
        sys.stdout = None
        sys.exit(EXIT_ERROR)
    except OSError as error:
        print_error(_unusable_file(error), as_json=as_json)
        sys.exit(EXIT_ERROR)
    # Without standalone mode click returns the code of a typer.Exit instead of leaving.
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _misunderstood(error: click.ClickException) -> ConfigurationError:
    return ConfigurationError(
        expected="a command line that can be understood",
        found=error.format_message(),
        remedy="See --help of the command.",
    )


def _missing_package(name: str) -> ConfigurationError:
    return ConfigurationError(
        expected="an installation for this command",
        found=f"no package {name}",
        remedy="This is the auditor's installation. Install synclave[site], synclave[server] or synclave[demo].",
    )


def _unusable_file(error: OSError) -> ConfigurationError:
    return ConfigurationError(
        expected="files and folders that can be read and written",
        found=f"{error.filename or 'the operating system says'}: {error.strerror or error}",
        remedy="Check the path, its permissions and the space on the disk.",
    )
