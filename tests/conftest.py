"""Options and profiles of the whole test suite."""

import pytest
from hypothesis import settings

# The folder of property tests stays below 20 seconds. `--hypothesis-profile=thorough` takes minutes.
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("thorough", max_examples=5000, deadline=None, print_blob=True)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite golden files and the chart's table as they come out now",
    )
