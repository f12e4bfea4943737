"""Makes small random Wan transformers with diffusers and writes what they compute.

Folder by folder below the given one:
  weights.safetensors   fp64 (values representable in fp32), diffusers names
  official.safetensors  the same tensors under official names, by diffusers' own conversion table
  case.safetensors      latent, timestep, text, cotangent, and for each of the three runs f64, f32 and
                        bf16: RUN.velocity and RUN.grad.NAME of every parameter
The loss is sum(velocity * cotangent).

f32 is diffusers as it is; bf16 is the same under autocast. diffusers computes its norms in float32 even in
a float64 model (Tensor.float) and its time sinusoid always in float32, so f64 runs with both
replaced by their float64 forms: the same formulas, without the roundings.
"""
import json
import math
import pathlib
import sys

import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import save_file

CASES = {
    "default_patch": dict(heads=3, head_dim=20, ffn=100, patch=(1, 2, 2), latent=(3, 6, 10), frequency=32),
    "long_patch": dict(heads=2, head_dim=16, ffn=52, patch=(2, 1, 2), latent=(6, 5, 6), frequency=18),
}
CHANNELS, TEXT_DIM, TEXT_TOKENS, LAYERS, BATCH = 4, 24, 70, 2, 2


class Float64Sinusoid(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.half = dim // 2

    def forward(self, timestep):
        frequencies = torch.exp(-math.log(10000) / self.half * torch.arange(self.half, dtype=torch.float64))
        angles = timestep.double()[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], 1)


def make_model(c):
    return WanTransformer3DModel(
        patch_size=c["patch"], num_attention_heads=c["heads"], attention_head_dim=c["head_dim"], in_channels=CHANNELS,
        out_channels=CHANNELS, text_dim=TEXT_DIM, freq_dim=c["frequency"], ffn_dim=c["ffn"], num_layers=LAYERS)


def randomise(model):
    for name, p in model.named_parameters():
        with torch.no_grad():
            p.normal_()
            if name.endswith("bias"):
                p.mul_(0.1)
            elif "norm" in name:
                p.mul_(0.2).add_(1)
            elif "scale_shift_table" in name:
                p.mul_(0.3)
            else:
                p.mul_(1 / math.sqrt(p[0].numel()))


def run(model, inputs, dtype, autocast=False):
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        velocity = model(hidden_states=inputs["latent"].to(dtype), timestep=inputs["timestep"].to(dtype),
                         encoder_hidden_states=inputs["text"].to(dtype), return_dict=False)[0]
    (velocity.to(dtype) * inputs["cotangent"].to(dtype)).sum().backward()
    results = {"velocity": velocity.detach()}
    results.update({f"grad.{name}": p.grad for name, p in model.named_parameters()})
    return {name: t.detach().double().contiguous() for name, t in results.items()}


def official_name_table():
    """diffusers name -> official name, with every name of the official checkpoints put through diffusers' conversion."""
    modules = ["patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2",
               "time_projection.1", "head.head"]
    names = ["head.modulation"]
    for i in range(LAYERS):
        names.append(f"blocks.{i}.modulation")
        for attention in ("self_attn", "cross_attn"):
            modules += [f"blocks.{i}.{attention}.{part}" for part in "qkvo"]
            names += [f"blocks.{i}.{attention}.norm_{part}.weight" for part in "qk"]
        modules += [f"blocks.{i}.norm3", f"blocks.{i}.ffn.0", f"blocks.{i}.ffn.2"]
    names += [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    # The conversion consumes its argument and reads no values of a text-to-video model.
    converted = convert_wan_transformer_to_diffusers({name: name for name in names})
    return {diffusers: official for diffusers, official in converted.items()}


def main():
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1])
    official = official_name_table()
    as_shipped = torch.Tensor.float
    for index, (name, c) in enumerate(CASES.items()):
        torch.manual_seed(100 + index)
        inputs = {
            "latent": torch.randn(BATCH, CHANNELS, *c["latent"]),
            "timestep": torch.tensor([987.625, 31.5]),
            "text": torch.randn(BATCH, TEXT_TOKENS, TEXT_DIM),
            "cotangent": torch.randn(BATCH, CHANNELS, *c["latent"]),
        }
        inputs["text"][1, 40:] = 0  # padding is visible to the model
        model = make_model(c)
        randomise(model)
        weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        assert set(weights) == set(official), set(weights) ^ set(official)
        tensors = dict(inputs)
        tensors.update({f"f32.{k}": v for k, v in run(model, inputs, torch.float32).items()})
        tensors.update({f"bf16.{k}": v for k, v in run(model, inputs, torch.float32, True).items()})

        torch.Tensor.float = lambda t: t if t.dtype == torch.float64 else as_shipped(t)
        model = make_model(c)
        model.load_state_dict(weights)
        model = model.double()
        model.condition_embedder.timesteps_proj = Float64Sinusoid(c["frequency"])
        model._keep_in_fp32_modules = []
        tensors.update({f"f64.{k}": v for k, v in run(model, inputs, torch.float64).items()})
        torch.Tensor.float = as_shipped

        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        doubles = {k: v.double().contiguous() for k, v in weights.items()}
        save_file(doubles, folder / "weights.safetensors")
        save_file({official[k]: v for k, v in doubles.items()}, folder / "official.safetensors")
        sizes = {"heads": c["heads"], "dim": c["heads"] * c["head_dim"], "ffn_dim": c["ffn"], "layers": LAYERS,
                 "text_dim": TEXT_DIM, "text_tokens": TEXT_TOKENS, "latent_channels": CHANNELS,
                 "frequency_dim": c["frequency"], "patch": list(c["patch"])}
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "case.safetensors",
                  metadata={"sizes": json.dumps(sizes)})


if __name__ == "__main__":
    main()
