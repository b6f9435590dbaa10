"""The network being explained: a frozen function from images to logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import TraceContextError
from jax import Array
from jaxtyping import Bool, Float, Int

from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.models import backbone
from ltx_jax.models.architecture import Architecture
from ltx_jax.models.layers import is_bias
from ltx_jax.models.links import LINKS, Link, of_answers, of_class, one_is_the_answer
from ltx_jax.models.python_function import PythonFunction, in_one_line

Intermediates = dict[str, Array]
Logits = Float[Array | np.ndarray, "... classes"]
Classes = Int[Array | np.ndarray, "..."]
# What a compiled program depends on, and what it does not.
_STRUCTURE = ("apply", "image_size", "channels", "num_classes", "link", "features")
_WORDS = ("name", "class_names", "architecture")
# Share of the logits by which two calls may differ that compute the same in another order.
_SAME = 1e-2


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Explainee:
    """A frozen classifier, `logits = explainee(images)`.

    Bring your own by giving any jit-able `apply` and its `params`; `load_explainee` makes one from
    a timm name. A pytree: it passes through `jax.jit` with its parameters as arguments, and a
    program compiled for it serves any other of the same structure (`apply`, sizes and link).

    Attributes:
      apply: (params, images float32 [n,H,W,C] in [0,1]) to logits [n,num_classes]; normalisation
        is its own affair.
      params: whatever pytree `apply` takes.
      image_size: (H, W) in pixels.
      num_classes: length of the logits. With one, the classes are two: 0 for no and 1 for yes.
      name: for messages and records.
      class_names: one a class, or empty.
      channels: of the images.
      link: `softmax` (one class is the answer) or `sigmoid` (each class is there or is not). One
        logit is a sigmoid, whatever this says.
      features: (params, images, added) to (logits, intermediates): named features and attention
        maps, each with `added[name]` added to it where there is one; None where nobody knows them.
        Rivals read `features`, `input` (the images once normalised), and `…/bias` (what a layer's
        bias adds at each position [n,g,h,c]).
      architecture: what `load_explainee` built, None for one of your own; an explainer without
        weights of its own starts from it.
    """

    apply: Callable[[Any, Array], Array]
    params: Any
    image_size: tuple[int, int]
    num_classes: int
    name: str = "custom"
    class_names: tuple[str, ...] = ()
    channels: int = 3
    link: str = "softmax"
    features: Callable[[Any, Array, Mapping[str, Array]], tuple[Array, Intermediates]] | None = None
    architecture: Architecture | None = None

    def __call__(self, images: Float[Array | np.ndarray, "n H W C"]) -> Float[Array, "n classes"]:
        """Logits in float32, whatever the network computes in; of one logit those of no and yes
        (`links.of_answers`)."""
        return of_answers(self.apply(self.params, jnp.asarray(images)))

    def __repr__(self) -> str:
        height, width, channels = self.image_shape
        return f"Explainee({self.name}, {height}×{width}×{channels}, {self.classes} classes)"

    def check(self) -> None:
        """See that `apply` gives what the sizes say, of each image by itself; a Python function is
        not called.

        Raises:
          InputError: where it does not, the names are not as many as the classes, there is no such
            link, or a parameter is NaN.
        """
        size = self.image_size
        if not (isinstance(size, tuple) and len(size) == 2 and min(size) > 0):
            raise InputError(f"image_size of {self.name} is {size!r}: expected (height, width)")
        if self.class_names and len(self.class_names) != self.classes:
            raise InputError(
                f"{self.name} has {len(self.class_names)} class names for {self.classes} classes: "
                "give one a class"
            )
        if self.link not in tuple(LINKS):
            raise InputError(
                f"the link of {self.name} is {self.link!r}: it is one of {', '.join(LINKS)}"
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            if jnp.issubdtype(leaf.dtype, jnp.floating) and np.isnan(leaf).any():
                where = jax.tree_util.keystr(path)
                raise InputError(
                    f"the parameters of {self.name} are NaN at {where or 'the only one'}: expected "
                    "numbers; load or train them again"
                )
        images = jax.ShapeDtypeStruct((2, *self.image_shape), jnp.float32)
        try:
            logits = _applied.eval_shape(self.apply, self.params, images)
        except TraceContextError as error:  # NNX, as it keeps what a batch was like
            raise InputError(self._in_training) from error
        except InputError:
            raise
        except Exception as error:  # whatever `apply` may raise
            raise InputError(
                f"{self.name} cannot be applied to images {images.shape} ({in_one_line(error)}): "
                "correct image_size and channels, or `apply`; explainee_of takes what is not JAX"
            ) from error
        shape = getattr(logits, "shape", None)
        if shape != (2, self.num_classes) or not jnp.issubdtype(logits.dtype, jnp.floating):
            found = f"a {type(logits).__name__}" if shape is None else f"{logits.dtype} {shape}"
            raise InputError(
                f"{self.name} gives {found} for two images: expected logits, floats "
                f"(2, {self.num_classes}); correct num_classes, or take them out in `apply`"
            )
        if not self.on_host:
            black = np.zeros((2, *self.image_shape), np.float32)
            beside_white = black.copy()
            beside_white[1] = 1
            alike, both = (_applied(self.apply, self.params, x) for x in (black, beside_white))
            self.refuse_neighbours(both, alike)

    def refuse_neighbours(
        self, both: Float[Array | np.ndarray, "2 k"], black: Float[Array | np.ndarray, "n k"]
    ) -> None:
        """See that what else is in a batch makes no difference.

        Args:
          both: logits of a black image and a white one.
          black: of a black image without a white one, the first.

        Raises:
          InputError: where it does.
        """
        both, black = np.asarray(both, np.float32), np.asarray(black, np.float32)
        if np.abs(both[0] - black[0]).max() > _SAME * max(np.abs(both).max(), 1):
            raise InputError(self._in_training)

    @property
    def _in_training(self) -> str:
        return (
            f"{self.name} gives a black image other logits beside a white one than alone: put it "
            "into evaluation mode, without dropout, or make it a function of each image"
        )

    def intermediates(
        self,
        images: Float[Array | np.ndarray, "n H W C"],
        added: Mapping[str, Array] | None = None,
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Logits, and named features and attention maps.

        Args:
          images: in [0,1].
          added: arrays by the name of an intermediate, added to it on its way: the gradient of
            anything with respect to zeros here is the gradient with respect to the intermediate.

        Raises:
          InputError: where the explainee does not give them, or not one of those names.
        """
        if self.features is None:
            raise InputError(
                f"{self.name} gives no intermediates: give Explainee(features=…), or choose a "
                "method that needs none"
            )
        logits, found = self.features(self.params, jnp.asarray(images), added or {})
        if unknown := set(added or ()) - set(found):
            raise InputError(
                f"{self.name} has no intermediate {min(unknown)!r}: it has {listed(found)}"
            )
        return of_answers(logits), found

    def with_backward(self, backward: str) -> Explainee:
        """The same classifier with another rule for gradients on their way back.

        Args:
          backward: of a CNN of ours one of `models.layers.BACKWARD`.

        Raises:
          InputError: where there is no such rule for it.
        """
        if not isinstance(self.features, backbone.Features):
            raise InputError(
                f"{self.name} has no backward rule {backward!r}, as only networks by name have: "
                "choose a method that needs none"
            )
        features = self.features.with_backward(self.name, backward)
        return dataclasses.replace(self, apply=backbone.Logits(features), features=features)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return (*self.image_size, self.channels)

    @property
    def mean_colour(self) -> tuple[float, ...]:
        """In [0,1], one a channel: what is 0 once normalised, so that nothing stands out; of an
        explainee of your own grey."""
        if self.architecture is None:
            return (0.5,) * self.channels
        return self.architecture.preprocessing.mean

    @property
    def classes(self) -> int:
        """How many classes can be asked for."""
        return max(self.num_classes, 2)

    @property
    def on_host(self) -> bool:
        """Whether it is a Python function, which gives no gradients and runs beside the devices."""
        return isinstance(self.apply, PythonFunction)

    @property
    def _link(self) -> Link:
        return LINKS["softmax" if self.single else self.link]

    def predicted(self, logits: Float[Array | np.ndarray, "n classes"]) -> Int[np.ndarray, " n"]:
        """The class with the largest logit, for each image."""
        return np.asarray(logits).argmax(-1)

    @property
    def single(self) -> bool:
        """Whether one class is the answer."""
        return one_is_the_answer(self.num_classes, self.link)

    def held(self, logits: Float[Array | np.ndarray, "*n classes"]) -> Bool[Array, "*n classes"]:
        """The classes that it holds to be there, p > 0.5; the most likely one where there is none,
        and where one is the answer."""
        logits = jnp.asarray(logits)
        likely = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=jnp.bool_)
        return likely if self.single else likely | (logits > 0)

    def probability(self, logits: Logits, classes: Classes) -> Float[Array, ...]:
        """The probability of one class each; leading axes may be 1 in either."""
        return of_class(self._link.probabilities(jnp.asarray(logits)), jnp.asarray(classes))

    def agreement(self, logits: Logits, classes: Classes) -> Bool[Array, ...]:
        """Whether the answer is that class (softmax), or holds it (sigmoid: p > 0.5)."""
        return self._link.agreement(jnp.asarray(logits), jnp.asarray(classes))

    def misfit(self, logits: Logits, classes: Classes) -> Float[Array, " n"]:
        """Cross-entropy with the class: of the softmax, or of that class's sigmoid."""
        return self._link.misfit(jnp.asarray(logits), jnp.asarray(classes))

    def preprocessing(self, resize: str) -> Preprocessing:
        """How a photograph becomes an input.

        Args:
          resize: `squash` (bilinear, aspect ratio not kept: what LTX does) or `crop` (what the
            network's published weights were evaluated with).
        """
        if resize == "crop" and self.architecture is not None:
            return dataclasses.replace(self.architecture.preprocessing, resize=resize)
        return Preprocessing(self.image_size, resize=resize)

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Any, ...]]:
        """Parameters, and what a compiled program depends on."""
        structure = {name: getattr(self, name) for name in _STRUCTURE}
        words = {name: getattr(self, name) for name in _WORDS}
        return (self.params,), (tuple(structure.items()), _Told(words))

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], leaves: tuple[Any]) -> Explainee:
        """Without checks: JAX passes more than arrays."""
        structure, told = static
        made = object.__new__(cls)
        for name, value in {**dict(structure), **told.words, "params": leaves[0]}.items():
            object.__setattr__(made, name, value)
        return made


def listed(found: Iterable[str]) -> str:
    """The names of intermediates for a message; those of biases are many, and left out."""
    return ", ".join(name for name in found if not is_bias(name)) or "none"


@dataclass(frozen=True, eq=False)
class _Told:
    """Words about a network, on which no compiled program depends: all of them are equal."""

    words: Mapping[str, Any] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Told)

    def __hash__(self) -> int:
        return 0


@partial(jax.jit, static_argnames="apply")
def _applied(apply: Callable[[Any, Array], Any], params: Any, images: Array) -> Any:
    """Whatever `apply` gives. One function, so that JAX does not remember each call anew."""
    return apply(params, images)


def in_chunks(function: Callable[[Any], Any], items: Any, chunk: int | None) -> Any:
    """Apply a batched function to at most `chunk` leading items at a time.

    Bounds memory on an accelerator and keeps activations in cache on a CPU.

    Args:
      function: pytree of [n,...] to pytree of [n,...].
      items: pytree whose leaves share their leading axis n.
      chunk: None for all at once. As few chunks as that allows are made of equal size, the last of
        them filled up with its last item, so that one program serves every chunk.
    """
    n = jax.tree.leaves(items)[0].shape[0]
    chunks = -(-n // (chunk or n))
    if chunks == 1:
        return function(items)
    size = -(-n // chunks)

    def split(x: Array) -> Array:
        missing = chunks * size - n
        filled = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)]) if missing else x
        return filled.reshape(chunks, size, *x.shape[1:])

    joined = jax.lax.map(function, jax.tree.map(split, items))
    return jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:n], joined)
