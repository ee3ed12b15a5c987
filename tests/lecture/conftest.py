"""The fixture by which tests report what benchmarks/lecture.py puts into the docs."""

import numpy as np
import pytest


def rounded(value):
    """Numbers to three digits; arrays and tuples become lists."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(x) for x in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.3g}") if abs(value) > 1e-12 else 0.0
    return int(value) if isinstance(value, np.integer) else value


@pytest.fixture
def report(record_property):
    """report(name=value, ...) prints sizes and puts them into pytest's report."""

    def report(**sizes):
        for name, value in sizes.items():
            record_property(name, rounded(value))
            print(f"{name} = {rounded(value)}")

    return report
