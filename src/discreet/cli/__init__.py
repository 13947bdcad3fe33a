"""The command line: `discreet MODE key=value …`, one file per mode.

    app.py       main: from the words typed to an exit status
    grammar.py   key=value and --key value, in any mixture
    output.py    standard output, standard error, JSON, errors
    helping.py   the pages of --help
    mode.py      what a mode is; modes.py: the table of all; options.py: its own arguments
    plan.py check.py train.py distill.py audit.py verify.py compare.py demo.py ledger.py
    version.py   the modes

Modes import torch and Ultralytics only once their arguments are right: help and most errors come
in a fraction of a second.
"""

from discreet.cli.app import main

__all__ = ["main"]
