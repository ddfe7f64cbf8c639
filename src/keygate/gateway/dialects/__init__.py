"""Wire dialects: how a body is read, its usage found, its refusals worded. `interface.py` is what the pipeline builds on."""

from keygate.gateway.dialects.interface import Answer, BadBody, Codec, Facts, Problem, Reading, Tap
from keygate.gateway.dialects.models import ListedModel, model_list, one_model
from keygate.gateway.dialects.refusals import refusal
from keygate.gateway.dialects.registry import codec, resolved

__all__ = [
    "Answer",
    "BadBody",
    "Codec",
    "Facts",
    "ListedModel",
    "Problem",
    "Reading",
    "Tap",
    "codec",
    "model_list",
    "one_model",
    "refusal",
    "resolved",
]
