"""ltx_jax: what did the classifier look at? Learned visual explanations in JAX."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "ltx_jax" / "__init__.py").read_text(encoding="utf-8")
)[1]

# CI tests with JAX 0.10 and with the newest versions of all.
CORE = [
    "jax>=0.10.0",
    "flax>=0.12.7",
    "optax>=0.2.2",
    "numpy>=2.0.0",
    "safetensors>=0.5.0",
    "jaxtyping>=0.3.2",
    "ml_collections>=1.0.0",
    "absl-py>=2.1.0",
    "pillow>=11.0.0",
    "tqdm>=4.66.0",
    "scipy>=1.13.0",
]
TEST = ["pytest>=8.0.0", "pytest-xdist>=3.6.0", "beartype>=0.20.0"]

setup(
    name="ltx_jax",
    version=VERSION,
    description=__doc__,
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["ltx_jax", "ltx_jax.*"]),
    package_data={"ltx_jax": ["py.typed"], "ltx_jax.assets": ["*.safetensors", "*.json"]},
    install_requires=CORE,
    extras_require={
        "hub": ["huggingface_hub>=0.30"],
        "heic": ["pillow-heif>=0.18"],
        "segmentation": ["h5py>=3.11", "pycocotools>=2.0.8"],
        "pretrain": ["grain>=0.2.18", "orbax-checkpoint>=0.12.8"],
        "tensorboard": ["tensorboardX>=2.6.5"],
        "tfds": ["tensorflow-datasets>=4.9.10"],
        "test": TEST,
        "parity": [
            *TEST,
            "torch>=2.13.0",
            "torchvision>=0.28.0",
            "timm>=1.0.15",
            "captum>=0.9.0",
            "grad-cam>=1.5.5",
            "quantus>=0.6.0",
        ],
        "dev": [*TEST, "ruff>=0.12", "mypy>=1.15", "pre-commit>=4.0"],
    },
)
