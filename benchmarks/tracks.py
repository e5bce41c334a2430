"""How well objects are linked over time, on synthetic series of nuclei whose tracks are known.

For nuclei of several densities and steps: the share of the objects with a link, from which `biounet` decides whether to
believe the links between two frames; and precision and recall of links and divisions. `--model` segments the images
first, as `biounet segment --frames all` does; without it, the true outlines are linked.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np

from biounet.measurement import link_objects
from biounet.synthetic import FieldSettings, MovieSettings, make_movie

COVERAGES, STEPS = (0.05, 0.15, 0.3), (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)


def numbered(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels 1..N, and the track of each of them, background first."""
    values, labels = np.unique(frame, return_inverse=True)
    if values[0] != 0:
        values, labels = np.concatenate([[0], values]), labels + 1
    return labels.reshape(frame.shape), values


def tracks_of(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the true track that most of each found object lies in, 0 for none; background first."""
    tracks = np.zeros(found.max() + 1, int)
    for label in range(1, len(tracks)):
        tracks[label] = np.bincount(truth[found == label]).argmax()
    return tracks


def score(settings: MovieSettings, seeds: range, model: str | None) -> dict[str, float]:
    """Return figures of links and divisions over all series."""
    right = made = possible = linked = objects = div_right = div_made = div_true = 0
    segmenter = None
    if model is not None:
        import biounet

        segmenter = biounet.load(model)
    for seed in seeds:
        grey, truth, parents = make_movie(seed, settings)
        if segmenter is None:
            frames = [numbered(frame) for frame in truth]
        else:
            labels = [segmenter.segment(frame, spacing=0.5).labels for frame in grey]
            frames = [(found, tracks_of(found, true)) for found, true in zip(labels, truth, strict=True)]
        for (before, a), (after, b) in pairwise(frames):
            links = link_objects(before, after)
            linked, objects = linked + links.linked, objects + links.possible
            pairs = [(a[x], b[y]) for x, y in links.same]
            common = {*a} & {*b} - {0}
            right, made = right + sum(x == y != 0 for x, y in pairs), made + len(pairs)
            possible += len(common)
            true = {
                (parents[track], track) for track in {*b} & {*parents} if parents[track] in {*a} and track not in {*a}
            }
            mothers = {mother for mother, _ in true if sum(one == mother for one, _ in true) == 2}
            found = {a[x] for x, _ in links.divided}
            div_right, div_made, div_true = (
                div_right + len(found & mothers),
                div_made + len(found),
                div_true + len(mothers),
            )
    return {
        "share": linked / max(1, objects),
        "precision": right / max(1, made),
        "recall": right / max(1, possible),
        "div_precision": div_right / div_made if div_made else float("nan"),
        "div_recall": div_right / div_true if div_true else float("nan"),
        "divisions": div_true,
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="segment with this model instead of taking the true outlines")
    parser.add_argument("--series", type=int, default=4, help="series of each kind")
    parser.add_argument("--divisions", type=float, default=0.03)
    arguments = parser.parse_args()
    print("coverage  step  share  precision  recall  div_precision  div_recall  divisions")
    for coverage in COVERAGES:
        for step in STEPS:
            field = FieldSettings(shape=(256, 256), coverage=coverage, elongation=1.2, diameter_spread=0.1)
            settings = MovieSettings(field, frames=6, step=step, divisions=arguments.divisions)
            figures = score(settings, range(arguments.series), arguments.model)
            cells = (f"{value:9.3f}" for value in figures.values())
            print(f"{coverage:8g} {step:5g}", *cells, flush=True)


if __name__ == "__main__":
    main()
