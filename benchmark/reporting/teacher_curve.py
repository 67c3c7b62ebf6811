"""The curve of a teacher's pretraining: loss and held-out accuracy."""

from collections.abc import Mapping, Sequence

from matplotlib import figure

from benchmark.reporting.figure import Figure
from benchmark.reporting.style import INK, panels


def teacher_curve(points: Sequence[Mapping[str, float]]) -> Figure:
    """Return the loss and the held-out accuracy by step.

    Args:
        points: logged by `teachers._fit.fit`: step, loss and the last held-out accuracy.
    """

    def draw() -> figure.Figure:
        drawn, axes = panels(2, height=1.2, sharex=True)
        for frame, name, label in zip(
            axes, ("loss", "held_out"), ("loss", "held-out accuracy, %"), strict=True
        ):
            frame.plot([point["step"] for point in points], [p[name] for p in points], color=INK)
            frame.set_ylabel(label)
        axes[-1].set_xlabel("step")
        return drawn

    first, last = points[0], points[-1]
    return Figure(
        name="teacher",
        title="Pretraining of the teacher",
        alt=(
            f"Over {last['step']:g} steps the loss went from {first['loss']:.3g} to "
            f"{last['loss']:.3g} and the held-out accuracy from {first['held_out']:.1f} to "
            f"{last['held_out']:.1f} per cent."
        ),
        draw=draw,
    )
