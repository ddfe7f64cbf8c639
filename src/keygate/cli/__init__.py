"""The command line: `keygate …`. Commands are assembled in `app.py`, a file a noun."""

import sys

from keygate.cli.server import PLAIN, become


def main() -> None:
    """Where the console script enters."""
    if sys.argv[1:] in PLAIN:
        become(sandbox="--sandbox" in sys.argv)
    from keygate.cli.app import app  # noqa: PLC0415  (the package's door stays light: importing it must not build the commands)

    app()
