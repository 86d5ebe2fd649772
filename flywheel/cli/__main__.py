"""The `flywheel` command, also as `python -m flywheel.cli`. It can be stopped while the rest is being imported."""

from flywheel.cli.stopping import stoppable


def main() -> None:
    """Run the command."""
    with stoppable():
        from flywheel.cli.main import main as run

        run()


if __name__ == "__main__":
    main()
