"""Names of condition encoders; `test_qwen3vl.py` opens folders."""

import pytest

from flywheel.core.errors import UsageError
from training.models.encoders import load_condition_encoder


def test_unknown_encoder_is_named():
    with pytest.raises(UsageError, match="unknown condition encoder 'clip'"):
        load_condition_encoder("clip")
