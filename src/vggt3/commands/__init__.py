"""One file per command: a typed function, its docstring, and calls into the floors below.

To add a command, write ``commands/NAME.py`` with one function (see
:mod:`vggt3.commands.parsing` for how its signature becomes a command line) and add a row to
``COMMANDS`` in :mod:`vggt3.cli`.
"""
