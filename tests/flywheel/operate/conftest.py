"""A curated pool to erase from."""

from tests.curation.conftest import curated  # noqa: F401 - fixture
