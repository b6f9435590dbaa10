"""What a training is told, and the images that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from ltx_jax.data.batches import Targets
from ltx_jax.data.examples import Source
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.training import data_mesh
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.sections import Pretrain, Settings
from ltx_jax.tasks.held_out import HeldOut
from ltx_jax.tasks.training_images import Split, split


class Data(NamedTuple):
    """What a training takes its images from.

    Attributes:
      source: of all images.
      how: they become inputs.
      images: which to train on, to judge by, and to leave.
      targets: of each image of the source, see `Order`.
      shape: of an input.
    """

    source: Source
    how: Preprocessing
    images: Split
    targets: Targets
    shape: tuple[int, int, int]

    def held_out(self, numbers: list[int], size: int, mesh: Mesh) -> HeldOut:
        """Some of its images, to judge by."""
        return HeldOut(self.source, self.how, self.targets, numbers, size, mesh, self.shape)


class Course(NamedTuple):
    """What every training is told.

    Attributes:
      source: images; some of them are held out.
      settings: of the section.
      resize: see `Explainee.preprocessing`.
      apart: so many of the images, the last, are held out by themselves.
      seed: of the split, of each epoch's order, and of all else that is drawn.
      workdir: gets the best network, checkpoints, log and page, see `TrainingFiles`; a training
        that it holds goes on. None writes nothing.
      fingerprint: what determines the result; a directory with another one is refused.
      leave: asked after each step whether to save and leave, see `termination_held`.
    """

    source: Source
    settings: Pretrain
    resize: str = "squash"
    apart: int = 0
    seed: int = 0
    workdir: Path | None = None
    fingerprint: Mapping[str, Any] | None = None
    leave: Callable[[int], bool] = lambda _: False

    @classmethod
    def of(
        cls,
        settings: Settings,
        source: Source,
        apart: int,
        workdir: Path,
        fingerprint: Mapping[str, Any],
        leave: Callable[[int], bool],
    ) -> Course:
        """What a configuration says of a training on its images."""
        given = source, settings.pretrain, settings.resize, apart, settings.seed
        return cls(*given, workdir, fingerprint, leave)

    @property
    def mesh(self) -> Mesh:
        """The devices that share a batch, or a part of it.

        Raises:
          InputError: where several processes' devices do not divide it.
        """
        return data_mesh(self.settings.batch_size // self.settings.accumulate)

    def split(self) -> Split:
        """Its images, divided.

        Raises:
          InputError: as `training_images.split`.
        """
        return split(self.source, self.settings, self.seed, self.apart)

    def data(self, explainee: Explainee, images: Split, targets: Targets) -> Data:
        """Its images as inputs of an explainee."""
        how = explainee.preprocessing(self.resize)
        return Data(self.source, how, images, targets, explainee.image_shape)
