"""`python -m flywheel.cli`."""

from flywheel.cli.main import main

if __name__ == "__main__":
    main()
