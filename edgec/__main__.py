"""`python -m edgec`."""

from edgec.compiler.cli import main

main()
