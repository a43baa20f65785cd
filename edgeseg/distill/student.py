"""The network that learns, with the weights it starts from."""

from pathlib import Path

import torch

from edgeseg.data.sources import expand_path
from edgeseg.distill.config import RunConfig
from edgeseg.distill.teachers import NetTeacher
from edgeseg.manifest import find_weights
from edgeseg.modeling.checkpoints import copy_decoder, load_decoder, load_state, read_state
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import build_model


def build_student(config: RunConfig, teacher: NetTeacher | None) -> PromptableNet:
    """Build the student with the weights it starts from.

    Raises:
        ConfigError: The model is unknown.
        WeightsError: Initial weights do not fit.
    """
    settings = config.student
    torch.manual_seed(config.seed)
    net = build_model(settings.model, settings.image_size, settings.imagenet)
    if settings.decoder == "teacher":
        assert teacher is not None  # the config is validated
        copy_decoder(teacher.net, net)
    elif settings.decoder != "random":
        load_decoder(net, expand_path(Path(settings.decoder)))
    if config.proposal_stage is not None:
        net.add_proposal_head()
    if settings.weights is not None:
        state, _ = read_state(find_weights(expand_path(Path(settings.weights))))
        load_state(net, state, settings.weights)
    return net.to(memory_format=torch.channels_last)
