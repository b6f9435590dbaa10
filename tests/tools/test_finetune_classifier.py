"""What a classifier is shown, and that it learns it."""

import functools

import finetune_classifier as tool
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from ltx_jax.engine.sharding import replicate, slot_mesh
from ltx_jax.engine.training import create_train_state, train_step


def test_one_cell_is_black_or_none():
    images = jnp.ones((2, 8, 8, 3))
    found = np.asarray(tool.without_cell(images, jnp.array([5, 16])))
    expected = np.ones((8, 8))
    expected[2:4, 2:4] = 0  # the second of the second row
    np.testing.assert_array_equal(found[0], np.repeat(expected[..., None], 3, -1))
    np.testing.assert_array_equal(found[1], 1)


def test_accuracy_counts_any_label_of_an_image(explainee, images):
    pictures = (255 * images[:4]).astype(np.uint8)
    whole = np.full(4, tool.SIDE**2, np.int32)
    answers = np.asarray(tool._answers(explainee, pictures, whole))
    shares = np.zeros((4, 5), np.float32)
    shares[[0, 1], answers[:2]] = 0.5
    shares[[0, 1, 2, 3], (answers + 1) % 5] = 0.5
    assert tool._accuracy(explainee, tool.Labelled(pictures, shares), whole) == 0.5


def test_it_learns_what_it_is_shown(explainee, images):
    mesh, shares = slot_mesh(1), np.eye(5, dtype=np.float32)[np.arange(7) % 5]
    batch = {"images": jnp.asarray((255 * images).astype(np.uint8)), "shares": shares}
    function = functools.partial(tool.cross_entropy, delete_cells=True)
    given = Partial(function, replicate(explainee, mesh))
    optimizer = Partial(optax.adamw, 1e-2)
    state = create_train_state(explainee.params["params"], {}, optimizer, mesh)

    def loss(params):
        return float(tool.cross_entropy(explainee, params, {}, batch, jax.random.key(0), False)[0])

    before = loss(state.params)
    for _ in range(20):
        state, _ = train_step(state, batch, jax.random.key(0), given, optimizer, mesh)
    assert loss(state.params) < 0.5 * before
