"""Two small transformers of diffusers, with and without adapters, in float64: what the tests of adapters compare with.

Sizes are those of tests/runtime/tiny_job.h, so that its jobs train the same models.
"""
import contextlib
import logging
import warnings

import make_cogvideox_case as cogvideox
import make_wan_case as wan
import torch
from diffusers import (CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel,
                       FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel)

# As training.lora without targets.
DEFAULT_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"]
CHANNELS, TEXT_DIM, BATCH, LATENT = 4, 8, 2, (3, 8, 10)


class Wan:
    name, pipeline, text_tokens = "wan", WanPipeline, 6

    @staticmethod
    def make():
        return WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=12, in_channels=CHANNELS,
            out_channels=CHANNELS, text_dim=TEXT_DIM, freq_dim=16, ffn_dim=64, num_layers=2)

    @staticmethod
    def pipeline_around(transformer):
        return WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(), transformer)

    @staticmethod
    def randomise(model):
        wan.randomise(model)

    @classmethod
    @contextlib.contextmanager
    def in_double(cls, model):
        model.condition_embedder.timesteps_proj = wan.Float64Sinusoid(16)
        model._keep_in_fp32_modules = []
        as_shipped = torch.Tensor.float
        torch.Tensor.float = lambda t: t if t.dtype == torch.float64 else as_shipped(t)
        try:
            model.rope = cls.make().rope  # its tables are made with the model
            yield
        finally:
            torch.Tensor.float = as_shipped

    @staticmethod
    def call(model, inputs):
        return model(hidden_states=inputs["latent"], timestep=inputs["timestep"], encoder_hidden_states=inputs["text"],
                     return_dict=False)[0]


class CogVideoX:
    name, pipeline, text_tokens = "cogvideox", CogVideoXPipeline, 13
    sizes = dict(head_dim=16, latent=LATENT, sample=(8, 12), patch_t=None, rotary=True)

    @staticmethod
    def make():
        return CogVideoXTransformer3DModel(
            num_attention_heads=4, attention_head_dim=16, in_channels=CHANNELS, out_channels=CHANNELS,
            time_embed_dim=24, text_embed_dim=TEXT_DIM, num_layers=2, sample_height=8, sample_width=12, sample_frames=9,
            patch_size=2, max_text_seq_length=13, use_rotary_positional_embeddings=True)

    @staticmethod
    def pipeline_around(transformer):
        return CogVideoXPipeline(None, None, None, transformer, CogVideoXDDIMScheduler())

    @staticmethod
    def randomise(model):
        cogvideox.randomise(model)

    @staticmethod
    @contextlib.contextmanager
    def in_double(model):
        model.time_proj = cogvideox.Float64Sinusoid(64)
        with cogvideox.float64_for_float32():
            yield

    @classmethod
    def call(cls, model, inputs):
        return model(hidden_states=inputs["latent"].transpose(1, 2), timestep=inputs["timestep"],
                     encoder_hidden_states=inputs["text"], image_rotary_emb=cogvideox.rotary_positions(cls.sizes),
                     return_dict=False)[0].transpose(1, 2)


FAMILIES = (Wan, CogVideoX)


def make_inputs(family):
    return {"latent": torch.randn(BATCH, CHANNELS, *LATENT), "timestep": torch.tensor([987.0, 31.0]),
            "text": torch.randn(BATCH, family.text_tokens, TEXT_DIM)}


def make_model(family, weights):
    model = family.make()
    model.load_state_dict(weights)
    return model.requires_grad_(False)


def compute(family, model, inputs):
    """The prediction, with every formula in float64. The model is not to be used for anything else afterwards."""
    model = model.double()
    with torch.no_grad(), family.in_double(model):
        return family.call(model, {name: t.double() for name, t in inputs.items()}).contiguous()


def error(found, exact):
    return ((found - exact).norm() / exact.norm()).item()


@contextlib.contextmanager
def no_warnings():
    """Loaders of diffusers and PEFT tell of missing and unexpected tensors in warnings alone."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logger.removeHandler(handler)
    found = [r.getMessage() for r in records] + [str(w.message) for w in caught if w.category is UserWarning]
    assert not found, found
