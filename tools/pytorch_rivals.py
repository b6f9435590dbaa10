"""Rivals as the packages `grad-cam` and `captum` compute them, for comparisons with ours.

The packages are imported where they are used. Maps are raw: before they enlarge and scale them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import torch
from pytorch_networks import Normalised

from ltx_jax.attribution.integrated_gradients import STEPS
from ltx_jax.attribution.smoothgrad import NOISE, SAMPLES


class Case(NamedTuple):
    """What is to be explained.

    Attributes:
      classifier: what `pytorch_networks.load_classifier` gives; in float64 after `double()`.
      images: [n,H,W,3] in [0,1].
      targets: [n].
    """

    classifier: Normalised
    images: np.ndarray
    targets: np.ndarray

    def inputs(self) -> torch.Tensor:
        """The images [n,3,H,W], at which gradients are to be had."""
        channels_first = torch.tensor(self.images.transpose(0, 3, 1, 2))
        return channels_first.to(self.classifier.mean).requires_grad_()

    def normalised(self) -> torch.Tensor:
        """The same as the network below the normalisation wants them."""
        inputs = (self.inputs() - self.classifier.mean) / self.classifier.std
        return inputs.detach().requires_grad_()


def last_layer(network: Any) -> Any:
    """The layer whose output is our `features`."""
    return network.layer4 if hasattr(network, "layer4") else network.features[-1]


def _map_of(name: str) -> Callable[[Case], np.ndarray]:
    """A class activation map of `grad-cam`, of the class of that name."""

    def maps(case: Case) -> np.ndarray:
        base = importlib.import_module("pytorch_grad_cam.base_cam")
        with mock.patch.object(base, "scale_cam_image", lambda cam, size=None: cam):
            return _run(name, case)

    return maps


def _run(name: str, case: Case, gain: float = 1.0) -> np.ndarray:
    package = importlib.import_module("pytorch_grad_cam")
    network = case.classifier.network
    targets = [lambda logits, k=int(k): gain * logits[k] for k in case.targets]
    with _in_silence(), getattr(package, name)(network, [last_layer(network)]) as cam:
        return np.asarray(cam(case.normalised(), targets))


def full_grad(case: Case) -> np.ndarray:
    """FullGrad of `grad-cam`, scaled to span [0,1]. The logit is multiplied by a power of 2, which
    changes nothing but the weight of the constant that keeps it from dividing by zero."""
    return _run("FullGrad", case, gain=2.0**20)


def _attribution(name: str, **how: Any) -> Callable[[Case], np.ndarray]:
    """An attribution of `captum`, of the class of that name: absolute values, added up over the
    channels."""

    def maps(case: Case) -> np.ndarray:
        method = getattr(importlib.import_module("captum.attr"), name)(case.classifier)
        found = method.attribute(case.inputs(), target=torch.tensor(case.targets), **how)
        return _over_channels(found)

    return maps


def guided_backpropagation(case: Case) -> np.ndarray:
    """Of `captum`, which wants ReLUs that do not overwrite their input."""
    for module in case.classifier.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    with _in_silence():
        return _attribution("GuidedBackprop")(case)


def lift_cam(case: Case) -> np.ndarray:
    """With contributions of `captum`'s DeepLIFT, from the last map on."""
    network, seen = case.classifier.network, []
    handle = last_layer(network).register_forward_hook(lambda _, _in, out: seen.append(out))
    with torch.no_grad():
        network(case.normalised())
    handle.remove()
    maps = seen[0].clone().requires_grad_()
    method = importlib.import_module("captum.attr").DeepLift(_after_last_layer(network))
    with _in_silence():
        found = method.attribute(maps, target=torch.tensor(case.targets))
    weights = found.sum((2, 3), keepdim=True)
    return (weights * maps).sum(1).relu().detach().cpu().numpy()


def _after_last_layer(network: Any) -> torch.nn.Module:
    nn = torch.nn
    if hasattr(network, "fc"):
        return nn.Sequential(network.avgpool, nn.Flatten(), network.fc)
    if isinstance(network.classifier, nn.Sequential):
        convolution = network.classifier[1]
        return nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pooled = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*pooled, network.classifier)


def occlusion(case: Case) -> np.ndarray:
    """Of `captum`, 16 windows at once; of images of 224×224, for which our windows have their
    published size."""
    method = importlib.import_module("captum.attr").Occlusion(case.classifier)
    with torch.no_grad():
        found = method.attribute(
            case.inputs(),
            sliding_window_shapes=(3, 15, 15),
            strides=(3, 8, 8),
            target=torch.tensor(case.targets),
            perturbations_per_eval=16,
        )
    return found[:, 0].cpu().numpy()


def smoothgrad(case: Case) -> np.ndarray:
    """Of `captum`, with the noise that ours draws."""
    attr = importlib.import_module("captum.attr")
    method, maps = attr.NoiseTunnel(attr.Saliency(case.classifier)), []
    for given, image, target in zip(case.inputs(), case.images, case.targets, strict=True):
        deviation = NOISE * float(np.ptp(image))
        with mock.patch.object(torch, "normal", _Noise(case.images.shape[1:])):
            found = method.attribute(
                given[None],
                nt_samples=SAMPLES,
                nt_samples_batch_size=1,
                stdevs=deviation,
                target=int(target),
                abs=False,
            )
        maps.append(_over_channels(found)[0])
    return np.stack(maps)


class _Noise:
    """Gives, where `torch.normal` is called for, the draws of our SmoothGrad in turn."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.keys = shape, iter(jax.random.split(jax.random.key(0), SAMPLES))

    def __call__(self, mean: float, deviation: torch.Tensor) -> torch.Tensor:
        drawn = np.asarray(jax.random.normal(next(self.keys), (1, *self.shape)))
        return mean + deviation * torch.tensor(drawn.transpose(0, 3, 1, 2), device=deviation.device)


def _over_channels(found: torch.Tensor) -> np.ndarray:
    return found.detach().abs().sum(1).cpu().numpy()


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """Without progress bars and warnings."""
    nowhere = io.StringIO()
    with (
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


# By the names of our rivals: (Case) to maps [n,g,h] or [n,H,W].
PACKAGES: dict[str, Callable[[Case], np.ndarray]] = {
    "grad_cam": _map_of("GradCAM"),
    "grad_cam_plus_plus": _map_of("GradCAMPlusPlus"),
    "layer_cam": _map_of("LayerCAM"),
    "score_cam": _map_of("ScoreCAM"),
    "ablation_cam": _map_of("AblationCAM"),
    "full_grad": full_grad,
    "lift_cam": lift_cam,
    "gradient_x_input": _attribution("InputXGradient"),
    "integrated_gradients": _attribution(
        "IntegratedGradients", n_steps=STEPS, method="riemann_middle", internal_batch_size=16
    ),
    "guided_backpropagation": guided_backpropagation,
    "smoothgrad": smoothgrad,
    "occlusion": occlusion,
}
