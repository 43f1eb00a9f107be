"""The tests, one file per module, and what they share."""

from __future__ import annotations

import pytest

# Elsewhere than in test files, pytest shows the values of a failed assert only where told to.
pytest.register_assert_rewrite("tests.bad_input", "tests.helpers", "tests.sessions")
