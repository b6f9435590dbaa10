"""A network that can explain or be explained: its module, and all that depends on which it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.models.backbone import Backbone, Features, Logits
from ltx_jax.weights.state_dict import Entry, StateDict
from ltx_jax.weights.tables import Dialect

# Attributes of modules that do not make another network.
_FLAX = {"parent", "name", "operations"}
_NO_SIZES = {
    *_FLAX,
    *("num_classes", "frozen_blocks", "lora_rank"),
    *("dtype", "attention", "as_products", "backward", "training", "dropped"),
}
HALF = (0.5, 0.5, 0.5)


def _as_it_is(state: StateDict, module: Any) -> StateDict:
    return state


@dataclass(frozen=True)
class Architecture:
    """A network that can explain or be explained.

    Attributes:
      name: the timm name.
      module: the Flax module.
      table: gives the module's weight table.
      preprocessing: what the published weights were trained with.
      classifier: name prefix of the classifier's tensors in a checkpoint.
      hub: the Hugging Face repository of the published weights, or None.
      download: where the weights are to be had by hand when they are not on the hub.
      dialects: renamings of other libraries' tensor names, tried in turn.
      told: what a state dict tells of the module's attributes, each of them.
      adapted: a state dict made to fit the module where it can be.
    """

    name: str
    module: Backbone
    table: Callable[[Any], list[Entry]]
    preprocessing: Preprocessing
    classifier: str
    hub: str | None = None
    download: str | None = None
    dialects: tuple[Dialect, ...] = ()
    told: tuple[Callable[[StateDict], dict[str, Any]], ...] = ()
    adapted: Callable[[StateDict, Any], StateDict] = _as_it_is

    @property
    def base_name(self) -> str:
        """The timm name without its weight tag."""
        return self.name.partition(".")[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.preprocessing.size

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return len(self.preprocessing.mean)

    @property
    def sizes(self) -> dict[str, Any]:
        """What `architecture` makes the same network of, beside its name: it leaves out the
        classes, which part is trained and how it is computed."""
        fields = (field.name for field in dataclasses.fields(self.module))
        found = {name: getattr(self.module, name) for name in fields if name not in _NO_SIZES}
        how = self.preprocessing
        return found | {"image_size": max(how.size), "mean": how.mean, "std": how.std}

    @property
    def features(self) -> Features:
        """The network as a function of parameters and images to logits and intermediates."""
        how = self.preprocessing
        return Features(self.module, how.mean, how.std)

    @property
    def apply(self) -> Logits:
        """The network as a function of parameters and images to logits."""
        return Logits(self.features)

    def with_module(self, **attributes: Any) -> Architecture:
        """The same architecture with some of its module's attributes changed."""
        return dataclasses.replace(self, module=self.module.clone(**attributes))

    def with_sizes(self, sizes: Mapping[str, Any]) -> Architecture:
        """The same with attributes of its module changed, or `image_size`, the input's height and
        width in pixels.

        Raises:
          InputError: for an unknown one, or sizes that do not fit.
        """
        sizes = {key: hashable(size) for key, size in sizes.items()}
        _check_sizes(self, sizes)
        module: Any = self.module.clone(
            **{key: size for key, size in sizes.items() if hasattr(self.module, key)}
        )
        _check_together(self.base_name, module)
        how = self.preprocessing
        if "image_size" in sizes:
            how = dataclasses.replace(how, size=(sizes["image_size"],) * 2)
        return dataclasses.replace(self, module=module, preprocessing=how)

    def with_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Architecture:
        """The same for inputs of another mean and deviation, one a channel.

        Raises:
          InputError: where they are none.
        """
        numbers = _is_like(mean, HALF) and _is_like(std, HALF)
        if not (numbers and len(mean) == len(std) and all(std)):
            raise InputError(
                f"the mean of {self.base_name} is {mean} and its std {std}: expected numbers, one "
                "a channel, and no std of 0"
            )
        how = dataclasses.replace(self.preprocessing, mean=tuple(mean), std=tuple(std))
        return dataclasses.replace(self, preprocessing=how)

    def of(self, state: StateDict, given: Collection[str]) -> Architecture:
        """The architecture that a state dict tells of, but for `given` attributes of its module.

        Raises:
          InputError: for sizes that do not fit, or that must be given.
        """
        found = {name: value for tell in self.told for name, value in tell(state).items()}
        found = {name: value for name, value in found.items() if name not in given}
        width = found.get("width")
        if width and "num_heads" not in found and "num_heads" not in given:
            raise InputError(
                f"the weights for {self.name} have a width of {width}, which is no multiple of 64 "
                "and does not tell the number of heads: give num_heads"
            )
        return dataclasses.replace(self.with_sizes(found), told=())


def _check_sizes(found: Architecture, sizes: Mapping[str, Any]) -> None:
    """Refuse sizes that the network does not have, or each by itself cannot have."""
    base = found.base_name
    known = {f.name for f in dataclasses.fields(found.module)} - _FLAX | {"image_size"}
    for key, size in sizes.items():
        if key not in known:
            raise InputError(
                f"{base} has no size {key!r}: it has {', '.join(sorted(known))}; correct the "
                "setting"
            )
        # A CNN takes images of any size.
        usual = getattr(found.module, key, max(found.size))
        if not _is_like(size, usual):
            raise InputError(f"the size {key} of {base} is {size!r}: expected one such as {usual}")
        least = {"num_classes": 0, "registers": 0, "image_size": found.module.smallest}.get(key, 1)
        if type(size) is int and size < least:
            raise InputError(f"the size {key} of {base} is {size}: it must be at least {least}")


def _check_together(base: str, module: Any) -> None:
    """Refuse a module whose sizes do not go together."""
    for part, whole in (("patch_size", "image_size"), ("num_heads", "width")):
        if hasattr(module, part) and getattr(module, whole) % getattr(module, part):
            raise InputError(
                f"the {whole} of {base} is {getattr(module, whole)}: it must be a multiple of its "
                f"{part}, {getattr(module, part)}"
            )
    if getattr(module, "distilled", False) and (module.averaged or module.norm_pooled):
        raise InputError(
            f"{base} is distilled, but has no class token or reads a mean: its logits are of its "
            "class and distillation tokens; leave distilled out, or the other"
        )


def _is_like(given: Any, usual: Any) -> bool:
    """Whether a value is of the usual one's kind: yes or no, a number, a whole one, or several."""
    if isinstance(usual, tuple):
        several = isinstance(given, tuple | list) and bool(given)
        return several and all(_is_like(one, usual[0]) for one in given)
    if isinstance(usual, bool) or isinstance(given, bool):
        return isinstance(usual, bool) and isinstance(given, bool)
    if isinstance(usual, int):
        return isinstance(given, Integral)
    return not isinstance(usual, float) or (isinstance(given, Real) and math.isfinite(given))


def hashable(size: Any) -> Any:
    """A size as modules have it: they are compared and hashed, which lists of a configuration or
    of JSON cannot be."""
    return tuple(size) if isinstance(size, list) else size
