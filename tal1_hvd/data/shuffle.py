"""Exact dinucleotide shuffles: negatives that keep each sequence's dinucleotide counts."""

from __future__ import annotations

import numpy as np

from tal1_hvd.data.encoding import ALPHABET


def dinucleotide_shuffle(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a sequence uniformly among all with the same first base and dinucleotide counts.

    A sequence is an Eulerian path through its bases, a dinucleotide an edge. The last edge that
    leaves each base must form a tree towards the last base; such a tree is drawn uniformly by
    loop-erased random walks (Wilson 1996), every other edge order is free (Altschul and Erickson
    1985, Mol Biol Evol 2:526; Kandel et al. 1996).

    Parameters
    ----------
    codes : np.ndarray, shape=(length,), dtype=uint8
    rng : np.random.Generator

    Returns
    -------
    np.ndarray, shape=(length,), dtype=uint8

    Examples
    --------
    >>> from tal1_hvd.data.encoding import decode, encode
    >>> shuffled = decode(dinucleotide_shuffle(encode("ACGTACAACG"), np.random.default_rng(1)))
    >>> sorted(a + b for a, b in zip(shuffled, shuffled[1:]))
    ['AA', 'AC', 'AC', 'AC', 'CA', 'CG', 'CG', 'GT', 'TA']
    """
    if len(codes) < 3:
        return codes.copy()
    end = int(codes[-1])
    before, after = codes[:-1], codes[1:]
    successors = [after[before == base] for base in range(len(ALPHABET))]
    # A tree's edge is set aside before the others are permuted; equal edges are interchangeable.
    tree = _arborescence(successors, end, rng)
    steps = [iter(_order(edges, tree.get(base), rng)) for base, edges in enumerate(successors)]
    base = int(codes[0])
    path = [base]
    for _ in range(len(after)):
        base = next(steps[base])
        path.append(base)
    return np.array(path, dtype=np.uint8)


def _order(edges: np.ndarray, last: int | None, rng: np.random.Generator) -> list[int]:
    """Return a base's edges in random order, but for the last one where it is given."""
    if last is None:
        return rng.permuted(edges).tolist()
    free = np.delete(edges, np.argmax(edges == last))
    return [*rng.permuted(free).tolist(), last]


def _arborescence(
    successors: list[np.ndarray], root: int, rng: np.random.Generator
) -> dict[int, int]:
    """Return each base's edge towards the root in a spanning tree drawn by Wilson's algorithm."""
    edge: dict[int, int] = {}
    in_tree = {root}
    for start in range(len(successors)):
        if start == root or not len(successors[start]):
            continue
        # Walking on overwrites the edges of a loop, which erases it.
        base = start
        while base not in in_tree:
            edge[base] = int(rng.choice(successors[base]))
            base = edge[base]
        base = start
        while base not in in_tree:
            in_tree.add(base)
            base = edge[base]
    return edge
