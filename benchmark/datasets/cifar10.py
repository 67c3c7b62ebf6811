"""CIFAR-10: 60 000 tiny photographs of 10 classes."""

from functools import partial
from pathlib import Path
from typing import ClassVar

from torchvision.datasets import CIFAR10

from benchmark.datasets._cifar import SOURCE, fetch, official
from benchmark.datasets._layouts import image_folder, open_below
from benchmark.spec import DatasetInfo, Records, Split

__all__ = ["Cifar10"]


class Cifar10:
    """``cifar10/{train,test}/<class>/<image>``, or torchvision's ``cifar-10-batches-py``."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="CIFAR-10",
        num_classes=10,
        num_train=50_000,
        num_test=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; collected from the web for research",
        citation="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    )

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """See `spec.Dataset.open`."""
        return open_below(
            root,
            split,
            [image_folder("cifar10"), official(CIFAR10, self.info.num_classes)],
            name="cifar10",
            source=SOURCE,
            fetch=partial(fetch, CIFAR10) if download else None,
        )
