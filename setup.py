"""ltx_jax: what did the classifier look at? Learned visual explanations in JAX."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INIT = Path(__file__).parent.joinpath("ltx_jax", "__init__.py").read_text()
VERSION = re.search(r'__version__ = "(.+)"', INIT)[1]

CORE = [
    "jax>=0.10",
    "flax>=0.12",
    "optax>=0.2",
    "numpy>=2.0",
    "safetensors>=0.5",
    "jaxtyping>=0.3",
    "ml_collections>=1.0",
    "absl-py>=2.1",
    "pillow>=11.0",
    "tqdm>=4.66",
]
TEST = ["pytest>=8.0"]

setup(
    name="ltx_jax",
    version=VERSION,
    description=__doc__,
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["ltx_jax", "ltx_jax.*"]),
    package_data={"ltx_jax.assets": ["*.safetensors", "*.json"]},
    install_requires=CORE,
    extras_require={
        "hub": ["huggingface_hub>=0.30"],
        "test": TEST,
        "parity": [*TEST, "torch>=2.4", "torchvision>=0.19", "timm>=1.0.15"],
        "dev": [*TEST, "ruff>=0.12", "mypy>=1.15"],
    },
)
