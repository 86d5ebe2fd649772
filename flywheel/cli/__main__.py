"""`python -m flywheel.cli`."""

from flywheel.cli.main import main

main()
