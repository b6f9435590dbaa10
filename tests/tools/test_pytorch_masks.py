"""The recipe in PyTorch against the same formula in JAX, on a small function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pytorch_masks  # noqa: E402

from ltx_jax.masks.tokens import upsample  # noqa: E402

RNG = np.random.default_rng(0)
N, STEPS, SIDE = 3, 4, 6
IMAGES = RNG.random((N, 3, SIDE, SIDE), np.float32)
BLUR = RNG.random((N, 3, SIDE, SIDE), np.float32)
START = RNG.normal(0, 1, (N, 2, 3)).astype(np.float32)
TARGETS = np.array([0, 2, 1])
KS = RNG.uniform(0.05, 0.95, (STEPS, N)).astype(np.float32)
FILLS = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 0, 2]])
INPUT = RNG.normal(0, 1, (3 * SIDE * SIDE, 8)).astype(np.float32)
OUTPUT = RNG.normal(0, 3, (8, 4)).astype(np.float32)
LAM, BUDGET, V = 2.0, 1.5, 0.7


class Small(torch.nn.Module):
    """tanh(images · INPUT) · OUTPUT."""

    def __init__(self):
        super().__init__()
        self.input = torch.nn.Parameter(torch.tensor(INPUT), requires_grad=False)
        self.output = torch.nn.Parameter(torch.tensor(OUTPUT), requires_grad=False)

    def forward(self, images):
        return torch.tanh(images.flatten(1) @ self.input) @ self.output


def misfit(images, target):
    return -jax.nn.log_softmax(jnp.tanh(images.reshape(-1) @ INPUT) @ OUTPUT)[target]


def parts(raw, k, image, target, other):
    """Cross-entropies of one image through its mask, its budgeted mask, and the complement."""
    cells, mean = jax.nn.sigmoid(raw), raw.mean()
    order = raw - mean + jax.lax.stop_gradient(mean)
    mask, pixels = (upsample(x, (SIDE, SIDE)) for x in (cells, order))
    still = jax.lax.stop_gradient(pixels)
    width = jnp.maximum(0.5 * still.std(), 0.3)
    kept = jax.nn.sigmoid((pixels - jnp.quantile(still, 1 - k)) / width)
    seen = [x[None] for x in (mask, kept, 1 - kept)]
    return [misfit(image * x + other * (1 - x), target) for x in seen]


def loss(raw, k, image, target, other):
    masked, kept, hidden = parts(raw, k, image, target, other)
    cells = jax.nn.sigmoid(raw)
    down, across = (jnp.abs(jnp.diff(cells, axis=axis)) for axis in (0, 1))
    variation = sum(jnp.where(d > 0.01, d - 0.005, 50 * d**2).mean() for d in (down, across))
    size = jax.nn.softplus(cells).mean()
    return masked + LAM * size + BUDGET * (kept - jnp.minimum(hidden, 6)) + V * variation


def given(step, i):
    """What the loss of one image looks at."""
    mean = np.broadcast_to(IMAGES[i].mean((1, 2), keepdims=True), IMAGES[i].shape)
    other = (np.zeros_like(mean), mean, BLUR[i])[FILLS[step, i]]
    return KS[step, i], IMAGES[i], TARGETS[i], other


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of torch's compiler
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_gradient_of_a_step(compiled):
    loss_of = torch.compile(pytorch_masks.total_loss) if compiled else pytorch_masks.total_loss
    raw = torch.tensor(START, requires_grad=True)
    weights, device = (LAM, BUDGET, V), torch.device("cpu")
    problem = pytorch_masks.Problem.of(IMAGES, TARGETS, BLUR, (2, 3), weights, device)
    total = loss_of(Small(), problem, raw, torch.tensor(KS[0]), torch.tensor(FILLS[0]))
    total.backward()
    # Losing the class counts up to a limit, which both are below and above.
    hidden = [float(parts(START[i], *given(0, i))[2]) for i in range(N)]
    assert min(hidden) < 6 < max(hidden)
    expected = [jax.value_and_grad(loss)(START[i], *given(0, i)) for i in range(N)]
    np.testing.assert_allclose(total.item(), sum(value for value, _ in expected), rtol=1e-5)
    np.testing.assert_allclose(raw.grad, [slope for _, slope in expected], rtol=1e-4, atol=1e-5)


def optimised(which=slice(None), steps=STEPS):
    some = (x[which] for x in (IMAGES, TARGETS, START))
    drawn = KS[:, which], FILLS[:, which]
    how = {"steps": steps, "weights": (LAM, BUDGET, V), "learning_rate": 0.3}
    return pytorch_masks.optimise(Small(), *some, *drawn, BLUR[which], compiled=False, **how)


def test_steps_are_adams():
    found, seconds = optimised()
    assert seconds > 0
    slope = jax.jit(jax.grad(loss))
    for i in range(N):
        raw, mean, square = START[i], np.zeros_like(START[i]), np.zeros_like(START[i])
        for step in range(STEPS):
            gradient = np.asarray(slope(raw, *given(step, i)))
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            size = np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8
            raw = raw - 0.3 * mean / (1 - 0.9 ** (step + 1)) / size
        np.testing.assert_allclose(found[i], raw, atol=1e-4)
    np.testing.assert_array_equal(optimised(steps=0)[0], START)


def test_an_image_alone_is_the_same():
    np.testing.assert_allclose(optimised()[0][1:2], optimised(slice(1, 2))[0], atol=1e-5)
