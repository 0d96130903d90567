"""Hosts that swing in step, found in their noisy pane series.

Every host's series is divided by the standard deviation of its known noise. Directions in time in which the hosts
together move more than noise can (Marchenko and Pastur 1967) are kept, and hosts are grouped by the direction of
their coordinates there. All products are of whole numbers, hence exact in any order and on any machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from power_model import exact

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

MAX_DIRECTIONS = 8
"""Directions in time that are kept: jobs of one domain whose swings differ."""
EDGE = 1.25
"""Factor on the noise's largest eigenvalue above which a direction counts."""
COSINE = 0.9
"""Hosts of a group are at most this far from its direction, their noise taken off."""
MIN_HOSTS = 4
"""Fewer hosts in step are not called a group: among hundreds of series some look alike by chance."""
ALIKE = 2.5
"""Hosts of a group swing at most so many times as far as its median, and at least one such part of it."""
MAX_GROUPS = 12
UNLIKE = 0.007
"""Standard deviation by which hosts of one job differ in a pane, as a share of their clip bound: where no noise hides
it, it must not split a group."""
LEAST_ROUNDS, MOST_ROUNDS = 4, 8
"""Rounds of subspace iteration with the fourth power of the matrix. Every machine stops at the same place: there is
nothing in it that two of them would do differently."""
NEARLY = 0.9
"""Directions that may come to count: those with an eigenvalue of at least this share of what counts."""
STILL = 1e-6
"""Directions that count are found when no coordinate moves further in a round: a two-hundredth of `_VECTOR_UNIT`'s."""
MAX_SEEDS = 64
"""Hosts around which a group is looked for, at most."""
MAX_RECENT = 4
"""Answers that are remembered, by a digest of the series."""
_RECENT: dict[bytes, list[Counts]] = {}
_UNIT = 256
_CLIP = 1 << 20
_EXACT = 1 << 53
_VECTOR_UNIT = 4096


def unlike_noise(noise_std: Floats, gpus: Counts, clip_w: float) -> Floats:
    """Return the known noise of panes [rows] with what hosts of one job differ by, as a standard deviation, W.

    `gpus` [rows]; `clip_w`: the largest reading of one that counts.
    """
    own = UNLIKE * clip_w * gpus
    return np.asarray(np.sqrt(noise_std**2 + own**2))


def synchronised_groups(panes: Floats, noise_std: Floats, labels: Sequence[str | None] | None = None) -> list[Counts]:
    """Return groups of rows in step, each int64[members] ascending, largest swing first; no row is in two.

    `panes` [rows, panes] (any unit), `noise_std` [rows] > 0: standard deviation of the known noise of one pane.
    `labels`: pseudonymous names of jobs; rows with the same one are a group, whatever their panes look like. The
    rows' order does not matter but for ties; pass them sorted.
    """
    free = np.ones(len(panes), dtype=np.bool_)
    result: list[Counts] = []
    by_label: dict[str, list[int]] = {}
    for row, label in enumerate(labels or ()):
        if label is not None:
            by_label.setdefault(label, []).append(row)
    for _, rows in sorted(by_label.items()):
        if len(rows) > 1:
            result.append(np.array(rows, dtype=np.int64))
            free[rows] = False
    others = np.flatnonzero(free)
    if others.size >= MIN_HOSTS and panes.shape[1] >= 4:
        if others.size < len(panes):  # else as they are: a copy of thousands of rows is not small
            panes, noise_std = panes[others], noise_std[others]
        result += [others[found] for found in _found_once(panes, noise_std)]
    return result


def _found_once(panes: Floats, noise_std: Floats) -> list[Counts]:
    """As `_found`, which a window asks twice: of its raw claims, and of those that count, as a rule the same."""
    asked = hashlib.sha256(b"%d %d " % panes.shape)
    for one in (panes, noise_std):
        asked.update(np.ascontiguousarray(one).reshape(-1).view(np.uint8).data)
    key = asked.digest()
    groups = _RECENT.get(key)
    if groups is None:
        groups = _found(panes, noise_std)
        while len(_RECENT) >= MAX_RECENT:
            _RECENT.pop(next(iter(_RECENT)), None)
        _RECENT[key] = groups
    return groups


def _found(panes: Floats, noise_std: Floats) -> list[Counts]:
    coordinates = _coordinates(panes, noise_std)
    directions = coordinates.shape[1]
    if not directions:
        return []
    energy = _squares(coordinates)
    moving = energy > directions + 6 + 4 * math.sqrt(2 * directions)
    free = np.ones(len(panes), dtype=np.bool_)
    groups: list[Counts] = []
    for _ in range(MAX_SEEDS):
        candidates = np.flatnonzero(free & moving)
        if candidates.size < MIN_HOSTS or len(groups) == MAX_GROUPS:
            break
        seed = int(candidates[np.argmax(energy[candidates])])
        members = _members(coordinates, energy, candidates, seed)
        free[seed] = False
        if members.size >= MIN_HOSTS:
            free[members] = False
            groups.append(members)
    return groups


def _coordinates(panes: Floats, noise_std: Floats) -> Floats:
    """Coordinates [rows, directions] in the directions that noise cannot make; unit: standard deviations."""
    rows, count = panes.shape
    series = np.ascontiguousarray(panes.T)
    level = series[0].copy()
    for pane in range(1, count):
        level += series[pane]
    series -= level / count
    series *= _UNIT / noise_std
    clip = min(_CLIP, math.isqrt(_EXACT // rows))
    whole = np.clip(np.rint(series, out=series), -clip, clip, out=series)
    gram = _gram(whole) / _UNIT**2
    largest = EDGE * (math.sqrt(rows) + math.sqrt(count - 1)) ** 2
    vectors = _subspace(gram, min(MAX_DIRECTIONS, count - 1), NEARLY * largest)
    kept = []
    for column in range(vectors.shape[1]):
        vector = vectors[:, column]
        image = _image(gram, vector[:, None])[:, 0]
        if exact.dot(vector, image) > largest:
            kept.append(column)
    if not kept:
        return np.zeros((rows, 0), dtype=np.float64)
    whole_vectors = np.rint(vectors[:, kept] * _VECTOR_UNIT)
    found = np.einsum("it,ij->jt", whole, whole_vectors, optimize=False)
    return np.asarray(found.T / (_UNIT * _VECTOR_UNIT))


def _gram(whole: Floats) -> Floats:
    """Products [n, n] of the rows of float64[n, m], whole numbers, with each other.

    Every sum on the way is a whole number that a float holds: exact, in whatever order and width it is added.
    """
    result = np.zeros((len(whole), len(whole)), dtype=np.float64)
    for row in range(len(whole)):
        result[row, row:] = np.einsum("t,jt->j", whole[row], whole[row:], optimize=False)
        result[row:, row] = result[row, row:]
    return result


def _image(matrix: Floats, vectors: Floats) -> Floats:
    """matrix times vectors, row after row of the sum."""
    result: Floats = matrix[:, 0, None] * vectors[0]
    for row in range(1, matrix.shape[0]):
        result += matrix[:, row, None] * vectors[row]
    return result


def _subspace(matrix: Floats, directions: int, counts: float) -> Floats:
    """Leading eigenvectors [n, directions] of a symmetric non-negative matrix by subspace iteration.

    Those with an eigenvalue of `counts` and more are found to `STILL`; what the others are does not matter.
    """
    n = matrix.shape[0]
    # A fixed start that no natural series is orthogonal to.
    start = (np.arange(n * directions, dtype=np.int64) * 2654435761 % 4294967296).astype(np.float64)
    vectors, _ = _orthonormal((start / 2147483648.0 - 1.0).reshape(n, directions))
    scale = max(float(matrix[i, i]) for i in range(n)) or 1.0
    squared = _image(matrix / scale, matrix / scale)
    fourth = _image(squared, squared)
    least = (counts / scale) * (counts / scale) * (counts / scale) * (counts / scale)
    for number in range(MOST_ROUNDS):
        before = vectors
        vectors, lengths = _orthonormal(_image(fourth, vectors))
        moved = np.abs(vectors - before)[:, lengths > least]
        if number + 1 >= LEAST_ROUNDS and float(moved.max(initial=0.0)) <= STILL:
            break
    return vectors


def _orthonormal(vectors: Floats) -> tuple[Floats, Floats]:
    """Gram and Schmidt, twice, and the columns' lengths across those before them; one that vanishes stays 0."""
    columns: list[Floats] = []
    lengths = []
    for index in range(vectors.shape[1]):
        column = vectors[:, index]
        for _ in range(2):
            for other in columns:
                column = column - exact.dot(column, other) * other
        length = math.sqrt(exact.dot(column, column))
        lengths.append(length)
        columns.append(column / length if length > 1e-9 else np.zeros_like(column))
    return np.stack(columns, axis=1), np.array(lengths)


def _squares(coordinates: Floats) -> Floats:
    total = np.zeros(len(coordinates), dtype=np.float64)
    for column in range(coordinates.shape[1]):
        total += coordinates[:, column] * coordinates[:, column]
    return total


def _members(coordinates: Floats, energy: Floats, candidates: Counts, seed: int) -> Counts:
    """Candidates in the seed's direction, which is found anew from them a few times."""
    directions = coordinates.shape[1]
    here, power = coordinates[candidates], energy[candidates]
    centre = coordinates[seed]
    members = np.array([seed], dtype=np.int64)
    slack = directions - 1 + 2.5 * math.sqrt(2 * max(1, directions - 1)) + 2
    signal = np.maximum(power - directions, 1e-9)
    for _ in range(4):
        length = math.sqrt(exact.dot(centre, centre))
        along = here[:, 0] * (centre[0] / length)
        for column in range(1, directions):
            along += here[:, column] * (centre[column] / length)
        near = (along * along - 1.0) / signal > COSINE**2
        # What is left across the direction is no more than noise: a weak host in step.
        near |= power - along * along < slack
        near &= along > 3.0
        found = along[near]
        if not found.size:
            break
        # As far in step as wide: one host that swings ten times as far would speak for all in the group's tail.
        usual = float(np.partition(found, found.size // 2)[found.size // 2])
        near &= (along > usual / ALIKE) & (along < usual * ALIKE)
        before, members = members, candidates[near]
        if np.array_equal(before, members):
            break
        centre = exact.columns(here[near]) / members.size
    return members
