"""A few augmented copies of each real image, drawn once, so that they are represented once.

If real images are augmented anew at each step, every step runs the teacher on its batch. K fixed
copies of all n images take K n passes in total, which is less after K n / b steps of b images.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmark import rng
from benchmark import views as predefined
from benchmark.augment import shifted
from benchmark.spec import Loop, Problem

from ._checked_file import fingerprint, kept

_BATCH = 1024  # images in a pass of the teacher


class AugmentedCopies:
    """Copies of every source image, each with its own shift and flip.

    The draws are the same for all seeds, so that the teacher's representations of a copy under a
    view are computed once for all of them, and stored in the problem's cache.

    Args:
        problem: with the images.
        num: copies of each image.
        max_shift: pixels, in either direction.
    """

    def __init__(self, problem: Problem, num: int, *, max_shift: int) -> None:
        self.problem = problem
        size = (num, len(problem.images))
        generator = rng.generator("augmented copies")
        offsets = torch.randint(-max_shift, max_shift + 1, (*size, 2), generator=generator)
        flipped = torch.rand(size, generator=generator) < 0.5
        self.offsets, self.flipped = offsets.to(problem.device), flipped.to(problem.device)
        self.representations: dict[str, Float[Tensor, "k n d"]] = {}

    @cached_property
    def _data(self) -> str:
        """Hash of the images and of the teacher, by its representations of them."""
        return fingerprint(self.problem.images, self.problem.representations("identity"))

    def __len__(self) -> int:
        return len(self.offsets)

    def images(
        self, copies: Int64[Tensor, " b"], rows: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """Return one copy of each given image."""
        images = self.problem.images[rows] / 255
        flipped = self.flipped[copies, rows][:, None, None, None]
        return shifted(torch.where(flipped, images.flip(3), images), self.offsets[copies, rows])

    def targets(
        self, views: Sequence[str], copies: Int64[Tensor, " b"], rows: Int64[Tensor, " b"]
    ) -> Float[Tensor, "vb d"]:
        """Return the teacher's representations of these copies, view by view."""
        return torch.cat([self.representations[view][copies, rows] for view in views])

    def represent(self, views: Sequence[str], checkpoint: Loop) -> None:
        """Compute the representations of every copy under each of `views`, once."""
        self.representations = {
            view: torch.stack([self._kept(copy, view, checkpoint) for copy in range(len(self))])
            for view in views
        }

    def _kept(self, copy: int, view: str, checkpoint: Loop) -> Float[Tensor, "n d"]:
        """Represent one copy of all images, or read an earlier run's result, charging its time."""
        if self.problem.cache is None:
            return self._represented(copy, view)
        file = self._file(self.problem.cache, copy, view)
        found = kept(file, lambda: {"representations": self._represented(copy, view)}, checkpoint)
        return found["representations"].to(self.problem.device)

    def _represented(self, copy: int, view: str) -> Float[Tensor, "n d"]:
        rows = torch.arange(len(self.problem.images), device=self.problem.device)
        batches = (self.images(torch.full_like(part, copy), part) for part in rows.split(_BATCH))
        return torch.cat([self.problem.teacher(predefined.apply(view, x)) for x in batches])

    def _file(self, folder: Path, copy: int, view: str) -> Path:
        """Return the path of these representations."""
        key = fingerprint(self._data, self.offsets[copy], self.flipped[copy], view)
        return folder / f"augmented-{key[:16]}.safetensors"
