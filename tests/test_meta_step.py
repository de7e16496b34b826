"""The outer step size: linear from its start to its end (paper, appendix A)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervised_reptile.config import paper_config
from supervised_reptile.from_config import meta_step_from_config
from supervised_reptile.training import LinearDecay


def test_meta_step_anneals_linearly():
    config = paper_config("omniglot", meta_step=0.5, meta_step_final=0.1, meta_iters=10)
    meta_step = meta_step_from_config(config)
    assert meta_step(0) == 0.5
    assert meta_step(5) == pytest.approx(0.3)
    assert meta_step(9) == pytest.approx(0.9 * 0.1 + 0.1 * 0.5)
    assert meta_step(10) == 0.1


@given(st.floats(0, 10), st.floats(0, 10), st.integers(1, 10**6), st.floats(0, 1))
def test_meta_step_stays_between_its_ends(start, final, iterations, where):
    meta_step = LinearDecay(start, final, iterations)
    assert meta_step(0) == start
    assert meta_step(iterations) == final
    low, high = sorted((start, final))
    assert low - 1e-12 <= meta_step(int(where * iterations)) <= high + 1e-12
