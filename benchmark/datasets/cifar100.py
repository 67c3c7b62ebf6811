"""CIFAR-100: 60 000 tiny photographs of 100 classes."""

from functools import partial
from pathlib import Path
from typing import ClassVar

from torchvision.datasets import CIFAR100

from benchmark.datasets._cifar import SOURCE, fetch, official
from benchmark.datasets._layouts import image_folder, open_below
from benchmark.spec import DatasetInfo, Records, Split

__all__ = ["Cifar100"]


class Cifar100:
    """``cifar100/{train,test}/<class>/<image>``, or torchvision's ``cifar-100-python``."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="CIFAR-100",
        num_classes=100,
        num_train=50_000,
        num_test=10_000,
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; collected from the web for research",
        citation="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    )

    def open(self, split: Split, *, root: Path | None, download: bool) -> Records:
        """See `spec.Dataset.open`."""
        return open_below(
            root,
            split,
            [image_folder("cifar100"), official(CIFAR100, self.info.num_classes)],
            name="cifar100",
            source=SOURCE,
            fetch=partial(fetch, CIFAR100) if download else None,
        )
