"""Precisions by name, apart from what makes networks so, which needs PyTorch."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
GraphPrecision = Literal["fp32", "fp16", "bf16"]  # that the exported graph can have
