"""The tests, in folders as the rooms that they test."""

import pytest

pytest.register_assert_rewrite("tests.fixtures")  # before anything imports it
