"""LTX on the scenes of the demo, to compare with: a bundled explainer, finetuned on each scene.

Needs nothing. Prints a table of LTX, pLTX (before finetuning) and integrated gradients.
Takes: a minute on two CPU cores, compilation included.

python -m ltx_jax.main --config=configs/demo_ltx.py
"""

from pathlib import Path

from ml_collections import ConfigDict

import ltx_jax
from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX

ASSETS = Path(ltx_jax.__file__).parent / "assets"


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.images = "scenes"
    config.limit = 32
    config.label_rows = "::4"  # both objects of every fourth scene
    config.explainee.name = "vit"
    config.explainee.weights = str(ASSETS / "demo_explainee.safetensors")
    config.explainee.sizes = ConfigDict(
        {
            "image_size": 96,
            "patch_size": 8,
            "width": 96,
            "depth": 4,
            "num_heads": 4,
            "num_classes": 10,
        }
    )
    config.explainer.checkpoint = str(ASSETS / "demo_explainer.safetensors")
    config.objective.mask_weight = 10.0
    config.finetune.learning_rate = 1e-3
    config.finetune.steps = 50
    # POS is at its best for most scenes before finetuning, so NEG selects; no scene stops early,
    # since the table compares full finetunings.
    config.finetune.optimize = "neg"
    config.finetune.stop_above = 101.0
    config.rivals = ("integrated_gradients",)
    return config
