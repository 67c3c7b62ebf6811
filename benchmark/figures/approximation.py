"""How well the approximation networks predict the shift of each view."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib import figure

from benchmark.rows import Row
from benchmark.stored_sets import MissingSetError, StoredSets

from ._choice import keys, listed, sets_of
from ._figure import Figure
from ._style import COLUMN, INK, looks

__all__ = ["approximation"]

_LOOP, _PREFIX = "approximation networks", "relative_error_"
_AVERAGED = 20  # logged points at the end: where images are many, each is of a batch


def approximation(rows: Sequence[Row], sets: StoredSets) -> list[Figure]:
    """Return one figure of the main budget; none if no method fits such networks."""
    shown = {
        label: seeds
        for label, seeds in sets_of(rows).items()
        if all(_views(row.losses) for row in seeds)
    }
    if not shown:
        return []
    every = [row for seeds in shown.values() for row in seeds]

    def draw() -> figure.Figure:
        errors = {label: [_errors(sets, row) for row in seeds] for label, seeds in shown.items()}
        return _draw(errors)

    return [
        Figure(
            name="approximation",
            title=f"Error of the approximation networks, N = {every[0].N}",
            notes=(
                "Mean squared error of the predicted shift of the target coefficients, relative to "
                "predicting no shift at all (1), at the end of the fit; dots are seeds."
            ),
            alt=(
                "Bars of relative error for each view. Over the last quarter of the fit: "
                f"{listed([_words(label, seeds) for label, seeds in shown.items()])}."
            ),
            draw=draw,
            sets=keys(every),
        )
    ]


def _views(logged: Mapping[str, object]) -> list[str]:
    views = [name.removeprefix(_PREFIX) for name in logged if name.startswith(_PREFIX)]
    return sorted(views, key=lambda view: (len(view), view))  # rot90 before rot180


def _words(label: str, rows: Sequence[Row]) -> str:
    views = [
        f"{view} {fmean(row.losses[_PREFIX + view][-1] for row in rows):.2f}"
        for view in _views(rows[0].losses)
        if all(_PREFIX + view in row.losses for row in rows)
    ]
    return f"{label} {', '.join(views)}"


def _errors(sets: StoredSets, row: Row) -> dict[str, float]:
    """Return by view the mean of what was logged last."""
    points = sets.history(row.distilled).get(_LOOP, [])[-_AVERAGED:]
    views = _views(points[-1]) if points else []
    if not views:
        raise MissingSetError(f"distilled set {row.distilled}: logged no error of each view")
    return {view: fmean(point[_PREFIX + view] for point in points) for view in views}


def _draw(errors: Mapping[str, Sequence[Mapping[str, float]]]) -> figure.Figure:
    drawn = figure.Figure(figsize=(COLUMN, 2.2), layout="constrained")
    frame = drawn.add_subplot()
    views = list(dict.fromkeys(view for seeds in errors.values() for view in seeds[0]))
    width = 0.8 / len(errors)
    for place, (label, look) in enumerate(looks(errors).items()):
        middles = [at + width * (place - (len(errors) - 1) / 2) for at in range(len(views))]
        for middle, view in zip(middles, views, strict=True):
            values = [seed[view] for seed in errors[label] if view in seed]
            if not values:
                continue
            name = label if view == views[0] else "_"
            frame.bar(middle, fmean(values), 0.9 * width, color=look.colour, label=name)
            frame.plot([middle] * len(values), values, "o", color=INK, markersize=2)
    frame.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
    frame.set_xticks(range(len(views)), views)
    frame.set_ylabel("relative error")
    frame.grid(visible=False, axis="x")
    drawn.legend(loc="outside lower center", ncols=len(errors))
    return drawn
