"""The course of a training, as a table and a picture beside the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from biounet.files import atomic_path, write_text
from biounet.measurement import columns_to_csv
from biounet.network import Card
from biounet.training.validation import primary_metric


def write_history(card: Card, model: Path) -> tuple[Path, Path]:
    """Write ``<model>.history.csv`` and ``<model>.curve.png``; return their paths."""
    table, picture = (model.with_name(f"{model.stem}{end}") for end in (".history.csv", ".curve.png"))
    names = list(dict.fromkeys(name for epoch in card.history for name in epoch))
    columns = {name: np.array([epoch.get(name, np.nan) for epoch in card.history]) for name in names}
    write_text(table, columns_to_csv(columns))
    _draw(card, picture)
    return table, picture


def _draw(card: Card, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left = figure.add_subplot(xlabel="epoch", ylabel="loss", title=card.recipe.name)
    epochs = [epoch["epoch"] for epoch in card.history]
    left.plot(epochs, [epoch["loss"] for epoch in card.history], color="tab:blue", label="loss")
    metric = next(filter(None, map(primary_metric, card.history)), None)
    if metric is not None:
        right = left.twinx()
        right.set(ylabel=f"validation {metric}", ylim=(0, 1))
        validated = [epoch for epoch in card.history if metric in epoch]  # epochs that there was time to validate
        right.plot([e["epoch"] for e in validated], [e[metric] for e in validated], color="tab:orange", label=metric)
    with atomic_path(path) as temporary:
        canvas.print_png(str(temporary))
