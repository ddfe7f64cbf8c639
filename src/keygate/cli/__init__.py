"""The command line: `keygate …`. Commands are assembled in `app.py`, a file a noun."""


def main() -> None:
    """Where the console script enters."""
    from keygate.cli.app import app  # noqa: PLC0415  (the package's door stays light: importing it must not build the commands)

    app()
