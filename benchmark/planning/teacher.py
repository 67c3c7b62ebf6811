"""A suite's teacher before it exists: its network, and the cost of pretraining it."""

from dataclasses import dataclass
from pathlib import Path

from benchmark import solo_learn
from benchmark.grid import TEACHER_MODEL, Suite, teacher_of
from benchmark.images import Sizes
from benchmark.network_factory import model_settings
from benchmark.planning.networks import Networks
from benchmark.teacher import expect_shape, teacher_identity
from benchmark.teacher_file import is_checkpoint, teacher_file
from benchmark.workload import Architecture, Forecast, TeacherOutline


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTeacher:
    """A teacher that need not exist yet.

    Attributes:
        network: its backbone.
        d: length of a representation.
        forecast: of its pretraining; None if unknown.
        is_file: whether it exists already.
    """

    network: Architecture
    d: int
    forecast: Forecast | None
    is_file: bool


def plan_teacher(suite: Suite, networks: Networks, source: Sizes) -> PlannedTeacher:
    """Return the suite's teacher, without making it.

    Raises:
        UsageError: there is no such kind or file.
    """
    if (file := teacher_file(suite.teacher)) is not None:
        return _from_file(file, networks)
    recipe = teacher_of(suite)
    network = Architecture.of(
        recipe.model,
        source.num_classes,
        model_settings(recipe.model, suite.settings.get(TEACHER_MODEL, {})),
    )
    d = networks.of(network).num_features
    outline = TeacherOutline(
        network=network,
        num_features=d,
        num_images=source.num_train,
        num_classes=source.num_classes,
        numel=networks.new_network.shape.numel,
        precision=networks.new_network.precision,
    )
    ask = getattr(recipe, "forecast", None)
    forecast = None if ask is None else ask(outline)
    return PlannedTeacher(network=network, d=d, forecast=forecast, is_file=False)


def _from_file(file: Path, networks: Networks) -> PlannedTeacher:
    """Return an existing teacher; a checkpoint's network is known without reading it."""
    if is_checkpoint(file):
        network = Architecture.of(solo_learn.MODEL, 1, solo_learn.SETTINGS)
        return PlannedTeacher(network=network, d=solo_learn.D, forecast=None, is_file=True)
    identity = teacher_identity(file)
    expect_shape(file, identity["image_shape"], networks.new_network.shape)
    network = Architecture.of(identity["model"], 1, identity["model_settings"])
    d = networks.of(network).num_features
    return PlannedTeacher(network=network, d=d, forecast=None, is_file=True)
