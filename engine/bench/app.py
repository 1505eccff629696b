"""The command group `engine bench`, to which the modules of its commands add theirs; cli.py gathers them."""

import typer

app = typer.Typer(no_args_is_help=True, help="Measure this engine on this machine; every run writes what it measured.")
