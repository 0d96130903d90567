"""A chain on a finer grid than the released one: where inside a state power is, as far as the release says.

The released states are a tenth of a GPU's limit wide. A chain that jumps between their middles invents power that
swings by a whole state whenever readings chatter around an edge, and none where they move inside a state. So every
state is divided, and the joint distribution of two consecutive readings is spread inside each released cell:

1. Where in a state readings are, the pane means say: their distribution, normalised to the state's occupancy.
2. How far they move from tick to tick, the crossings of an edge say: the step size at which a diffusion of that
   density crosses the edge as often as counted (Rice's formula, on a grid). Inside a state the smaller one of its
   edges' step sizes holds, or what the second differences of quiet panes allow, whichever is less.
3. Transitions further than to the neighbour are jumps: both ends independent.
4. Every cell is scaled to its count and rows and columns are balanced, in turns: the coarse chain is the released
   one, and the fine one is stationary.

Nothing here reaches a signed output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SUBSTATES = 5
"""Parts of a state. 3 leave 1 dB more distance in 0.5-2 Hz on real traces, 8 gain 0.2 dB at 2.5 times the cost."""
MAX_CELLS = 64
"""Fine cells at most: time and memory grow with the cube."""
DENSITY_FLOOR = 0.02
"""Share of a state's occupancy that is spread evenly, whatever the pane means say."""
MIN_STEP = 0.06
"""Smallest step size, in widths of a state: a third of a fine cell, below which the chain would never move."""
JITTER_SHARE = 0.5
"""Step size inside a state per standard deviation that white noise would need to explain the quiet panes. White noise
is the most that can be there; on real traces half of it gives the best spectrum above 2 Hz."""
TELEPORT = 1e-6
"""Share of every transition that follows the occupancy: every pane can be reached, at a price."""
BALANCE_ROUNDS = 30
MEDIAN_TO_STD = 1.4826
DOUBT = 4.0
"""How far above the known noise the quiet panes must move, in units of 1 / sqrt(their number)."""


@dataclass(frozen=True, slots=True)
class FineChain:
    """`values_w`, `width_w` float64[n]; `states` int64[n]: released state of each fine cell; `matrix` [n, n]
    row-stochastic; `occupancy` [n] sums to 1; `jitter_w` [n]: spread of white noise inside a cell, W.
    """

    values_w: Floats
    width_w: Floats
    states: Integers
    matrix: Floats
    occupancy: Floats
    jitter_w: Floats


def fine_chain(
    counts: npt.NDArray[Any], bounds_w: Floats, pane_w: Floats, pane_variance_w2: float, ticks_per_pane: int
) -> FineChain:
    """Refine a released chain.

    `counts` [k+2, k+2], non-negative (projected); `bounds_w` [k+2]: clip bounds and edges; `pane_w`: pane means of
    one GPU in the order of time, W, with known noise of variance `pane_variance_w2`. Raises `ConfigError` if no
    transition is left or more than `MAX_CELLS` states are visited.
    """
    joint = counts[:-1, :-1].astype(np.float64)
    visited = np.flatnonzero(joint.sum(axis=0) + joint.sum(axis=1) > 0)
    if not visited.size:
        raise ConfigError("the release has no transition that stands out of its noise", field="transitions")
    if visited.size > MAX_CELLS:
        raise ConfigError(f"{visited.size} states are visited; at most {MAX_CELLS} can be refined", field="edges_w")
    joint = joint[np.ix_(visited, visited)] / joint.sum()
    parts = max(1, min(SUBSTATES, MAX_CELLS // visited.size))
    low, width = bounds_w[visited], np.diff(bounds_w)[visited]
    values = (low[:, None] + (np.arange(parts) + 0.5) / parts * width[:, None]).ravel()
    states = np.repeat(np.arange(visited.size), parts)
    cell_w = np.repeat(width / parts, parts)
    density = _density(
        joint.sum(axis=1), values, states, pane_w, math.hypot(0.5 * float(cell_w.min()), math.sqrt(pane_variance_w2))
    )
    edge_steps = _edge_steps(joint, visited, values, states, density, width)
    jitter = _jitter(pane_w, pane_variance_w2, np.append(low, low[-1] + width[-1]), ticks_per_pane)
    state_steps = _state_steps(edge_steps, jitter, width)
    fine = _spread(joint, visited, values, states, density, edge_steps, state_steps)
    fine = _balanced(fine, joint, np.arange(0, values.size, parts))
    occupancy = fine.sum(axis=1)
    matrix = np.where(occupancy[:, None] > 0, fine / np.maximum(occupancy, 1e-300)[:, None], np.eye(values.size))
    occupancy /= occupancy.sum()
    matrix = (1 - TELEPORT) * matrix + TELEPORT * occupancy
    return FineChain(
        values, cell_w, visited[states], matrix, occupancy, np.minimum(jitter[states], cell_w / math.sqrt(12))
    )


def _density(mass: Floats, values: Floats, states: Integers, pane_w: Floats, bandwidth_w: float) -> Floats:
    """Share of readings per fine cell: inside each state the distribution of the pane means.

    The kernel falls off as the fourth power: in a state that is left before a pane ends, no pane mean lies, and where
    they are beyond its edges still says on which side of it the readings are.
    """
    seen = np.zeros(values.size)
    for part in np.array_split(pane_w, max(1, pane_w.size // 1000)):
        seen += (1 / (1 + ((values[:, None] - part) / bandwidth_w) ** 2) ** 2).sum(axis=1)
    even = 1.0 / np.bincount(states)
    share = seen / np.bincount(states, seen)[states]
    return np.asarray(mass[states] * ((1 - DENSITY_FLOOR) * share + DENSITY_FLOOR * even[states]))


def _edge_steps(
    joint: Floats, visited: Integers, values: Floats, states: Integers, density: Floats, width: Floats
) -> Floats:
    """Step size, W, at each edge between neighbouring states: the one that crosses it as often as counted; 0: never."""
    steps = np.zeros(max(0, visited.size - 1))
    for edge in range(steps.size):
        wanted = (joint[edge, edge + 1] + joint[edge + 1, edge]) / 2
        if visited[edge + 1] != visited[edge] + 1 or not wanted > 0:
            continue
        below, above = states == edge, states == edge + 1
        low, high = MIN_STEP * width[edge], width[edge]
        for _ in range(30):
            middle = (low + high) / 2
            kernel = np.exp(-0.5 * ((values[below][:, None] - values) / middle) ** 2)
            crossing = density[below] * kernel[:, above].sum(axis=1) / kernel.sum(axis=1)
            low, high = (middle, high) if crossing.sum() < wanted else (low, middle)
        steps[edge] = (low + high) / 2
    return steps


def _jitter(pane_w: Floats, noise_w2: float, bounds_w: Floats, ticks_per_pane: int) -> Floats:
    """Standard deviation of white noise, W, that would explain the quiet panes of each state, float64[states].

    The median of second differences sees neither steps nor slow drift; a state with few panes takes that of all.
    """
    second = np.abs(pane_w[2:] - 2 * pane_w[1:-1] + pane_w[:-2])
    if not second.size:
        return np.zeros(bounds_w.size - 1)
    at = np.clip(np.searchsorted(bounds_w, pane_w[1:-1], side="right") - 1, 0, bounds_w.size - 2)
    found = []
    for state in range(bounds_w.size - 1):
        of_state = second[at == state]
        median = float(np.median(of_state if of_state.size > 5 else second))
        # White noise of variance v per pane has second differences of variance 6 v. A median of n of them is uncertain
        # by about 3 / sqrt(n); tick by tick an excess over the known noise would count ten times: only a clear one may.
        clear = 1 + DOUBT / math.sqrt(of_state.size if of_state.size > 5 else second.size)
        found.append(math.sqrt(max(0.0, (MEDIAN_TO_STD * median) ** 2 / 6 - noise_w2 * clear) * ticks_per_pane))
    return np.array(found)


def _state_steps(edge_steps: Floats, jitter: Floats, width: Floats) -> Floats:
    """Step size inside each state, W."""
    smallest = np.full(width.size, np.inf)
    known = np.where(edge_steps > 0, edge_steps, np.inf)
    smallest[:-1] = known
    smallest[1:] = np.minimum(smallest[1:], known)
    return np.asarray(np.maximum(np.minimum(JITTER_SHARE * jitter, smallest), MIN_STEP * width))


def _spread(
    joint: Floats,
    visited: Integers,
    values: Floats,
    states: Integers,
    density: Floats,
    edge_steps: Floats,
    state_steps: Floats,
) -> Floats:
    """Joint distribution on the fine grid before scaling: near cells along the diagonal, far ones independent."""
    near = np.diag(state_steps) + np.diag(edge_steps, 1) + np.diag(edge_steps, -1)
    step = near[np.ix_(states, states)]
    distance = values[:, None] - values
    kernel = np.exp(-0.5 * (distance / np.where(step > 0, step, 1.0)) ** 2)
    # A neighbour's count without a step size is a jump, too; the least number keeps every counted cell reachable.
    along = np.sqrt(density[:, None] * density) * kernel + 1e-200
    return np.where(step > 0, along, density[:, None] * density) * (joint[np.ix_(states, states)] > 0)


def _balanced(fine: Floats, joint: Floats, starts: Integers) -> Floats:
    """Scale cells to their counts, and rows to columns, in turns (Sinkhorn; Osborne)."""
    parts = np.append(np.diff(starts), fine.shape[0] - starts[-1])
    for _ in range(BALANCE_ROUNDS):
        rows, columns = fine.sum(axis=1), fine.sum(axis=0)
        ratio = np.sqrt(np.maximum(columns, 1e-300) / np.maximum(rows, 1e-300))
        ratio = np.clip(ratio, 0.5, 2.0)  # counts of one window do not balance exactly: no run-away
        fine = fine * ratio[:, None] / ratio
        mass = np.add.reduceat(np.add.reduceat(fine, starts, axis=0), starts, axis=1)
        scale = np.where(mass > 0, joint / np.maximum(mass, 1e-300), 0.0)
        fine = fine * np.repeat(np.repeat(scale, parts, axis=0), parts, axis=1)
    return fine
