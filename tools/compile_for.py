"""Compile a run's step for a TPU, without one: whether it fits, and what the compiler makes of it.

python tools/compile_for.py --config=configs/vit_base.py --topology=v5e:2x2 \
    --config.finetune.slots=4 [--config.compute_dtype=bfloat16] [--config.task=pretrain] [--search]

Compiles one step of the engine that optimises slots, or with --config.task=pretrain one training
step, for the devices of a topology (`v4:2x2x4`, `v5e:2x2`, `v6e:2x2` …), and prints the memory that
it takes of each device, what the devices tell each other, its operations (every mask scored in
full), and the large copies and transposes in it; what only moves between the memories of a chip is
no copy. With --search, how many slots, or images in a batch, fit: some three compilations more, of
which a large network's takes minutes. Needs `pip install "jax[tpu]"`, neither a TPU nor weights.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import app, flags
from fitting import compile_step, devices_of, report, search, step_of
from ml_collections import config_flags

from ltx_jax.errors import InputError
from ltx_jax.settings.configuration import read

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
_TOPOLOGY = flags.DEFINE_string("topology", None, "Kind of TPU and its shape, e.g. v5e:2x2.")
_SEARCH = flags.DEFINE_bool("search", False, "Find the largest step that fits as well.")


def main(argv: Sequence[str]) -> int:
    """Print what was found; 2 where the configuration or the topology cannot be used."""
    del argv
    try:
        if _CONFIG.value is None or _TOPOLOGY.value is None:
            raise InputError("give --config, a file of configs/, and --topology, e.g. v5e:2x2")
        config = _CONFIG.value
        # No image is read: whatever they are, the step is the same.
        config.images = config.images or "any"
        settings, devices = read(config), devices_of(_TOPOLOGY.value)
        step = step_of(settings, devices.mesh)
        print(f"{step.what} in {settings.compute_dtype} for {_TOPOLOGY.value}")
        made = compile_step(step, step.asked)
        print(report(step, made, devices), flush=True)
        if _SEARCH.value:
            found = search(step, devices, made)
            print(f"most {step.counted} that fit with a tenth to spare: {found}")
    except InputError as error:
        print(f"compile_for: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    app.run(main)
