"""The state grid: borders, missing readings, midpoints, edges that are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_model.grid import MAX_EDGES, Grid, midpoints_w
from schemas.errors import ConfigError

EDGES = st.sets(st.integers(1, 2000), min_size=1, max_size=12).map(lambda found: tuple(sorted(found)))


@given(EDGES, st.lists(st.floats(0, 3000, width=32) | st.just(float("nan")), min_size=1, max_size=30))
def test_assign_agrees_with_the_definition(edges: tuple[int, ...], readings: list[float]) -> None:
    grid = Grid(edges)
    expected = [grid.missing if x != x else sum(x >= edge for edge in edges) for x in readings]
    assert grid.assign(np.array(readings, dtype=np.float32)).tolist() == expected


def test_a_reading_on_an_edge_is_above_it_and_infinity_is_no_gap() -> None:
    grid = Grid((100, 200))
    found = grid.assign(np.array([99.99, 100, 200, np.inf, -np.inf, np.nan], dtype=np.float32))
    assert found.tolist() == [0, 1, 2, 2, 0, 3]
    assert (grid.states, grid.missing, grid.cells) == (3, 3, 4)
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    "edges", [(), (0, 5), (-1,), (5, 5), (7, 3), tuple(range(1, MAX_EDGES + 2))], ids=lambda e: str(e[:3])
)
def test_bad_edges_are_refused(edges: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        Grid(edges)


def test_midpoints_reach_to_the_clip_bounds() -> None:
    assert midpoints_w((100, 300), 50, 700).tolist() == [75.0, 200.0, 500.0]
    for low, high in ((101, 700), (50, 299)):
        with pytest.raises(ConfigError):
            midpoints_w((100, 300), low, high)
