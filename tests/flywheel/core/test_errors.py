"""What a caller may catch."""

import pytest

import flywheel
from flywheel.core.errors import BadImage, UsageError, first_line


def test_a_users_error_is_no_picture_and_a_picture_no_users_error() -> None:
    assert flywheel.UsageError is UsageError
    assert issubclass(BadImage, ValueError) and not issubclass(UsageError, ValueError)
    assert not issubclass(BadImage, UsageError)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("no such tag\nmore"), "no such tag"),
        (OSError("\n  late"), "late"),
        (OSError(), "OSError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_an_error_that_says_nothing_is_called_by_its_kind(error: Exception, told: str) -> None:
    assert first_line(error) == told
