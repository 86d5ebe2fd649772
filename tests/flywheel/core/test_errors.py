"""What a caller may catch."""

import flywheel
from flywheel.core.errors import BadImage, UsageError


def test_a_users_error_is_no_picture_and_a_picture_no_users_error() -> None:
    assert flywheel.UsageError is UsageError
    assert issubclass(BadImage, ValueError) and not issubclass(UsageError, ValueError)
    assert not issubclass(BadImage, UsageError)
