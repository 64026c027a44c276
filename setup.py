"""Package metadata; the packages are listed one by one because they are plain top-level names."""

import re
from pathlib import Path

from setuptools import setup

_SOURCE = (Path(__file__).parent / "pipeline/version.py").read_text("utf-8")

setup(
    name="reelcolor",
    version=re.findall(r'VERSION = "(.+)"', _SOURCE)[0],
    description="Colorize black-and-white film reels, surveillance footage and image archives in bulk",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=["pipeline", "model", "model.networks", "model.engines", "jobs"],
    package_data={"model": ["pretrained/*", "recipes/*.toml"], "pipeline": ["py.typed"], "jobs": ["py.typed"]},
    install_requires=[
        "av>=18.1",
        "click>=8.3",
        "fsspec>=2026.9",
        "grpcio>=1.85",  # of ray:// addresses
        "imagecodecs>=2026.3",
        "matplotlib>=3.11",
        "numpy>=2.4",
        "onnx>=1.23",
        "onnxscript>=0.7",
        "opencv-python-headless>=5.0",
        "openvino>=2026.4",
        "pandas>=3.1",  # pandas, pyarrow, pydantic and requests: Ray Train imports them
        "pillow>=13.0",
        "pyarrow>=26.0",
        "pydantic>=2.14",
        "ray>=2.60",
        "requests>=2.34",
        "rich>=15.0",
        "safetensors>=0.8",
        "tifffile>=2026.3",
        "torch>=2.11",
    ],
    extras_require={
        "dev": [
            "hypothesis>=6.170",
            "mypy>=2.4",
            "onnxruntime>=1.31",
            "psutil>=7.2",
            "pytest>=9.2",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "ray[default]>=2.60",  # the cluster's Jobs API
            "ruff>=0.17",
            "scikit-image>=0.26",
            "scikit-learn>=1.9",
            "tensorrt-cu13-bindings>=11.4",  # the API alone, that calls are held against; no libraries
            "threadpoolctl>=3.6",
        ],
        "s3": ["s3fs>=2026.9"],  # of fsspec's own version
        "s3-test": ["flask>=3.1", "flask-cors>=6.0", "moto[s3]>=5.2"],  # a server on this machine
        "cluster": ["ray[default]>=2.60"],  # the job client here, the dashboard with its Jobs API on the head
    },
    entry_points={"console_scripts": ["reelcolor=jobs.start:main"]},
)
