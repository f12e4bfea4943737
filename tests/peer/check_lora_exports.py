"""Reads with diffusers and PEFT what `sprocket lora export` wrote (lora_peer_test.cc), and compares what the models
compute.

The exported factor is a power of two and all weights are float32, so that nothing but the order of summation differs in
float64: 1e-10, as in the tests of whole models. Merged weights are rounded to float32: each is within a few roundings of
what it stands for, and the prediction errs at most twice as much as with the weights that PEFT merges in float32.
"""
import pathlib
import sys

import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from lora_models import FAMILIES, compute, error, make_model, no_warnings

EXACT, UNIT_ROUNDOFF = 1e-10, 2.0 ** -24


def check_tensors(model, file, prefix):
    """Every tensor of the file has become a tensor of the model's adapters, and there are no others."""
    expected = load_file(file)
    found = get_peft_model_state_dict(model, adapter_name=next(iter(model.peft_config)))
    assert {prefix + k for k in found} == set(expected), {prefix + k for k in found} ^ set(expected)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[prefix + name]), name


def check_merged(merged, weights, adapters):
    assert set(merged) == set(weights), set(merged) ^ set(weights)
    changed = 0
    for name, base in weights.items():
        layer = "transformer." + name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" not in adapters:
            assert torch.equal(merged[name], base), name
            continue
        changed += 1
        down, up = (adapters[f"{layer}.lora_{kind}.weight"].double() for kind in "AB")
        # A sum of as many products as the rank, the factor and the sum with the weight.
        roundings = down.shape[0] + 2
        bound = roundings * UNIT_ROUNDOFF * (base.double().abs() + up.abs() @ down.abs())
        assert ((merged[name].double() - (base.double() + up @ down)).abs() <= bound * 1.001).all(), name
    assert 2 * changed == len(adapters), (changed, len(adapters))


def check(family, folder):
    inputs = {k: v for k, v in load_file(folder / "case.safetensors").items() if k in ("latent", "timestep", "text")}
    weights = load_file(folder / "weights.safetensors")
    exported = folder / "exported"
    ours = load_file(exported / "prediction.safetensors")["prediction"]

    def transformer():
        return make_model(family, weights)

    def compare(what, model):
        found = error(compute(family, model, inputs), ours)
        print(f"{family.name}: {what}: {found:.1e}")
        assert found <= EXACT, (what, found)

    model = transformer()
    with no_warnings():
        model.load_lora_adapter(exported, weight_name="adapters.safetensors")
    check_tensors(model, exported / "adapters.safetensors", "transformer.")
    compare("load_lora_adapter of the transformer", model)

    model = transformer()
    with no_warnings():
        pipeline = family.pipeline_around(model)
        pipeline.load_lora_weights(exported, weight_name="adapters.safetensors")
    check_tensors(model, exported / "adapters.safetensors", "transformer.")
    compare("load_lora_weights of the pipeline", model)

    merged = load_file(exported / "merged.safetensors")
    check_merged(merged, weights, load_file(exported / "adapters.safetensors"))
    rival = transformer()
    rival.load_lora_adapter(exported, weight_name="adapters.safetensors")
    rival.fuse_lora()
    rival.unload_lora()
    theirs = error(compute(family, rival, inputs), ours)
    found = error(compute(family, make_model(family, merged), inputs), ours)
    print(f"{family.name}: merged: {found:.1e}, of PEFT {theirs:.1e}")
    assert 0 < found <= 2 * theirs, (found, theirs)


def main():
    torch.set_num_threads(1)
    for family in FAMILIES:
        check(family, pathlib.Path(sys.argv[1]) / family.name)


if __name__ == "__main__":
    main()
