import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Read as text: importing keras_sip would need TensorFlow, which is not there yet when pip builds the package.
version = re.search(r'^__version__ = "(.+)"$', (ROOT / "keras_sip" / "_version.py").read_text(), re.MULTILINE)[1]

plots = ["matplotlib>=3.9,<4"]
# Keras exports to ONNX through tf2onnx; onnxruntime runs what was written.
onnx = ["onnx>=1.20,<2", "onnxruntime>=1.20,<2", "tf2onnx>=1.17,<2"]
# The server of `python -m keras_sip serve`.
# httptools and uvloop are the faster halves of uvicorn, which takes them where they are.
serve = [
    "starlette>=1.0,<2",
    "uvicorn>=0.40,<1",
    "httptools>=0.6,<1",
    "uvloop>=0.21,<1",
    "orjson>=3.11,<4",
    "prometheus-client>=0.22,<1",
]
# Ed25519 signatures of exported models.
signing = ["cryptography>=45"]
docs = ["sphinx>=9,<10", "myst-parser>=5,<6", "furo>=2025.12"]
# ruff and mypy are held to one minor version: formatting and findings change between them.
test = [
    "pytest>=9,<10",
    "pytest-xdist>=3.8,<4",
    "hypothesis>=6.170,<7",
    "httpx>=0.28,<1",
    "ruff>=0.17,<0.18",
    "mypy>=2.4,<2.5",
]

setup(
    name="keras_sip",
    version=version,
    description="Train neural networks through physics simulators with scale-invariant inverse solvers, in Keras 3",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The keras_sip authors",
    license="MIT",
    packages=[*find_packages(include=["keras_sip*"]), "keras_sip.saved_models"],
    # The trained models lie at the root of the checkout and inside the installed package.
    package_dir={"keras_sip.saved_models": "saved_models"},
    package_data={"keras_sip": ["py.typed"], "keras_sip.saved_models": ["**/*"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<4",
        "tensorflow-probability>=0.25,<0.26",
        # TensorFlow Probability imports it but does not require it.
        "tf-keras>=2.21,<2.22",
        "numpy>=2.0,<3",
        "scipy>=1.14,<2",
        "tensorboard>=2.20,<3",
    ],
    extras_require={
        "plots": plots,
        "onnx": onnx,
        "serve": serve,
        "signing": signing,
        "docs": docs,
        "test": plots + onnx + serve + signing + test,
    },
)
