"""Makes small random CogVideoX transformers with diffusers and writes what they compute.

Folder by folder below the given one:
  weights.safetensors   fp64 (values representable in fp32), diffusers names
  case.safetensors      latent [B, C, T, H, W], timestep, text, cotangent, and for each of the three runs f64, f32
                        and bf16: RUN.prediction and RUN.grad.NAME of every parameter
The loss is sum(prediction * cotangent).

f32 is diffusers as it is; bf16 is the same under autocast. diffusers computes its time sinusoid, its positions and
their rotation in float32 even in a float64 model, so f64 runs with float32 replaced by float64 there: the same
formulas, without the roundings.
"""
import contextlib
import json
import math
import pathlib
import sys

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models import embeddings
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from safetensors.torch import save_file

# sample: height and width of the latent that the model was made for
CASES = {
    "sinusoids": dict(heads=3, head_dim=16, latent=(3, 6, 10), sample=(8, 12), patch_t=None, rotary=False),
    "scaled_rope": dict(heads=2, head_dim=32, latent=(2, 10, 6), sample=(8, 12), patch_t=None, rotary=True),
    "rope_1_5": dict(heads=3, head_dim=16, latent=(4, 6, 10), sample=(12, 20), patch_t=2, rotary=True),
}
CHANNELS, TEXT_DIM, TEXT_TOKENS, TIME_DIM, LAYERS, BATCH, PATCH = 4, 24, 13, 20, 2, 2, 2


class Float64Sinusoid(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.half = dim // 2

    def forward(self, timestep):
        frequencies = torch.exp(-math.log(10000) / self.half * torch.arange(self.half, dtype=torch.float64))
        angles = timestep.double()[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], 1)


@contextlib.contextmanager
def float64_for_float32():
    single, to_float, defaults = torch.float32, torch.Tensor.float, embeddings.get_1d_rotary_pos_embed.__defaults__
    torch.float32 = torch.float64
    torch.Tensor.float = lambda t: t.double()
    embeddings.get_1d_rotary_pos_embed.__defaults__ = defaults[:-1] + (torch.float64,)
    try:
        yield
    finally:
        torch.float32, torch.Tensor.float = single, to_float
        embeddings.get_1d_rotary_pos_embed.__defaults__ = defaults


def make_model(c):
    return CogVideoXTransformer3DModel(
        num_attention_heads=c["heads"], attention_head_dim=c["head_dim"], in_channels=CHANNELS, out_channels=CHANNELS,
        time_embed_dim=TIME_DIM, text_embed_dim=TEXT_DIM, num_layers=LAYERS, sample_height=c["sample"][0],
        sample_width=c["sample"][1], sample_frames=9, patch_size=PATCH, patch_size_t=c["patch_t"],
        max_text_seq_length=TEXT_TOKENS, use_rotary_positional_embeddings=c["rotary"])


def rotary_positions(c):
    """As diffusers' CogVideoXPipeline makes them."""
    if not c["rotary"]:
        return None
    frames, height, width = c["latent"]
    grid, base = (height // PATCH, width // PATCH), (c["sample"][0] // PATCH, c["sample"][1] // PATCH)
    if c["patch_t"] is None:
        crop = get_resize_crop_region_for_grid(grid, base[1], base[0])
        return embeddings.get_3d_rotary_pos_embed(c["head_dim"], crop, grid, frames)
    return embeddings.get_3d_rotary_pos_embed(c["head_dim"], None, grid, frames // c["patch_t"], grid_type="slice",
                                              max_size=base)


def randomise(model):
    for name, p in model.named_parameters():
        with torch.no_grad():
            p.normal_()
            if name.endswith("bias"):
                p.mul_(0.1)
            elif p.dim() == 1:
                p.mul_(0.2).add_(1)
            else:
                p.mul_(1 / math.sqrt(p[0].numel()))


def run(model, c, inputs, dtype, autocast=False):
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        prediction = model(hidden_states=inputs["latent"].to(dtype).transpose(1, 2), timestep=inputs["timestep"].to(dtype),
                           encoder_hidden_states=inputs["text"].to(dtype), image_rotary_emb=rotary_positions(c),
                           return_dict=False)[0].transpose(1, 2)
    (prediction.to(dtype) * inputs["cotangent"].to(dtype)).sum().backward()
    results = {"prediction": prediction.detach()}
    results.update({f"grad.{name}": p.grad for name, p in model.named_parameters()})
    return {name: t.detach().double().contiguous() for name, t in results.items()}


def main():
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1])
    for index, (name, c) in enumerate(CASES.items()):
        torch.manual_seed(200 + index)
        inputs = {
            "latent": torch.randn(BATCH, CHANNELS, *c["latent"]),
            "timestep": torch.tensor([987.0, 31.0]),
            "text": torch.randn(BATCH, TEXT_TOKENS, TEXT_DIM),
            "cotangent": torch.randn(BATCH, CHANNELS, *c["latent"]),
        }
        model = make_model(c)
        randomise(model)
        weights = {k: v.detach().clone() for k, v in model.named_parameters()}
        tensors = dict(inputs)
        tensors.update({f"f32.{k}": v for k, v in run(model, c, inputs, torch.float32).items()})
        tensors.update({f"bf16.{k}": v for k, v in run(model, c, inputs, torch.float32, True).items()})

        model = make_model(c)
        model.load_state_dict(weights, strict=False)
        model = model.double()
        model.time_proj = Float64Sinusoid(c["heads"] * c["head_dim"])
        with float64_for_float32():
            tensors.update({f"f64.{k}": v for k, v in run(model, c, inputs, torch.float64).items()})

        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.double().contiguous() for k, v in weights.items()}, folder / "weights.safetensors")
        positions = "sinusoids" if not c["rotary"] else "scaled_rope" if c["patch_t"] is None else "rope"
        dim = c["heads"] * c["head_dim"]
        sizes = {"heads": c["heads"], "dim": dim, "ffn_dim": 4 * dim, "layers": LAYERS, "text_dim": TEXT_DIM,
                 "text_tokens": TEXT_TOKENS, "time_dim": TIME_DIM, "latent_channels": CHANNELS,
                 "patch": [c["patch_t"] or 1, PATCH, PATCH], "positions": positions,
                 "base": [c["sample"][0] // PATCH, c["sample"][1] // PATCH]}
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "case.safetensors",
                  metadata={"sizes": json.dumps(sizes)})


if __name__ == "__main__":
    main()
