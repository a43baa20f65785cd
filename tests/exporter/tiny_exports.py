"""Tiny graphs and their ONNX models, each converted once a test run, and prompts to ask them."""

import functools

import numpy as np
import torch
from random_weights import randomised_tiny

from edgeseg.exporter.graphs import DecoderGraph, EncoderGraph, FusedGraph, shape_of
from edgeseg.exporter.onnx_files import convert
from edgeseg.signature import PromptSlots, decoder_spec, encoder_spec, fused_spec

SIDE = 64


@functools.cache
def tiny_net(name="edgeseg_tiny"):
    return randomised_tiny(SIDE, name=name)


@functools.cache
def encoder_graph(name="edgeseg_tiny", normalises=False):
    return EncoderGraph(tiny_net(name), normalises)


@functools.cache
def decoder_graph(name="edgeseg_tiny"):
    return DecoderGraph(tiny_net(name))


@functools.cache
def encoder_export(name="edgeseg_tiny", normalises=False):
    spec = encoder_spec(shape_of(tiny_net(name)), normalises)
    return convert(encoder_graph(name, normalises), spec)


@functools.cache
def decoder_export(name="edgeseg_tiny", num_prompts=None, num_points=None, labels="int64"):
    slots = PromptSlots(num_prompts, num_points)
    spec = decoder_spec(shape_of(tiny_net(name)), slots, labels)
    return convert(decoder_graph(name), spec)


@functools.cache
def fused_export():
    net = tiny_net("vit_tiny")
    spec = fused_spec(shape_of(net), PromptSlots(2, 2))
    return convert(FusedGraph(net), spec)


@functools.cache
def features_of(name="edgeseg_tiny"):
    """Features of a random image as float32 arrays, by the name of their tensor."""
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        features = encoder_graph(name)(torch.randn(1, 3, SIDE, SIDE, generator=generator))
    names = [tensor.name for tensor in shape_of(tiny_net(name)).features]
    return {key: feature.numpy() for key, feature in zip(names, features, strict=True)}


# Labels of one prompt: a point, a negative and a positive one, a box, a box with two points.
KINDS = [1], [0, 1], [2, 3], [1, 2, 3, 0]


def prompt_inputs(num_prompts, num_points, seed=0, labels="int64"):
    """Points off the diagonal with labels of all kinds that fit, empty slots and mask prompts.

    Every second prompt has a mask; the masks of the others are random, too, and must not count.
    """
    generator = np.random.default_rng(seed)
    kinds = [kind for kind in KINDS if len(kind) <= num_points]
    point_labels = np.full((num_prompts, num_points), -2)
    for row in range(num_prompts):
        kind = kinds[row % len(kinds)]
        place = row % (num_points - len(kind) + 1)  # empty slots may stand anywhere
        point_labels[row, place : place + len(kind)] = kind
    points_xy = generator.uniform([32, 0], [64, 32], (num_prompts, num_points, 2))
    return {
        "points_xy_model": points_xy.astype(np.float32),
        "point_labels": point_labels.astype(labels),
        "mask_logits": 4 * generator.standard_normal((num_prompts, 1, 16, 16)).astype(np.float32),
        "has_mask": (np.arange(num_prompts) % 2).astype(np.float32),
    }


@torch.inference_mode()
def answers_of(graph, inputs):
    """What a decoder or fused graph answers in PyTorch."""
    logits, scores = graph(*map(torch.from_numpy, inputs.values()))
    return {"low_res_logits": logits.numpy(), "iou_scores": scores.numpy()}
