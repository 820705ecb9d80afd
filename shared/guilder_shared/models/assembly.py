"""A study's torch module, put together: body, head, adapters, and what is frozen.

It imports torch; the registry imports it where a module is asked for. Nothing is
checked here and nothing is trained.
"""

import torch
from torch import nn

from guilder_shared.models import families, parts, pretrained, starting
from guilder_shared.models.segmenter import UNet
from guilder_shared.study import Study


def build(study: Study) -> nn.Module:
    """The module that is trained, as `registry.build` promises it."""
    model, row = study.model, families.row(study)
    trained = set(families.trained(study))
    if model.name == "unet":
        return _filled(UNet(row.shape[0], model.width or 8), study, trained)
    features, bias = families.num_features(study), families.has_head_bias(study)
    if model.train == "head":
        return parts.HeadAlone(features, row.classes, bias=bias)
    whole = parts.Headed(body(study), features, row.classes, bias=bias)
    if model.train == "lora":
        parts.adapt(whole, families.rank(study))
    return parts.freeze(whole, trained)


def body(study: Study) -> nn.Module:
    """The body with its frozen values: public weights, or drawn from the digest."""
    with torch.device(
        "meta"
    ):  # without torch's own starting values: they take a second
        made = families.body(study)
    made.load_state_dict(_frozen(study, prefix="body."), assign=True)
    return made.eval()


def _filled(module: nn.Module, study: Study, trained: set[str]) -> nn.Module:
    if study.model.train not in (None, "all"):
        module.load_state_dict(_frozen(study, prefix=""))
    return parts.freeze(module, trained)


def _frozen(study: Study, prefix: str) -> dict[str, torch.Tensor]:
    if study.model.pretrained:
        arrays = dict(pretrained.minilm(study.model.pretrained))
    else:
        drawn = starting.draw(families.starts(study), seed=int(study.digest(), 16))
        arrays = {
            name.removeprefix(prefix): array
            for name, array in drawn.items()
            if name.startswith(prefix)
        }
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
