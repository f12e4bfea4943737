"""Runs diffusers' schedulers step by step and writes what they do: make_sampler_cases.py FILE.

Per case levels [n + 1], timesteps [n], x [n + 1, E], v [n, E] and, where there is noise, z [n, E], all in float64.
diffusers keeps its noise levels in float32 and takes a sample through it; here both are float64: the same formulas,
without the roundings. TDM's step is not in diffusers, except without predicted noise (eta 0); it is written out below.
"""
import json
import math
import sys

import numpy
import torch
from diffusers.schedulers import scheduling_flow_match_euler_discrete as euler_module
from diffusers.schedulers import scheduling_unipc_multistep as unipc_module
from safetensors.torch import save_file

ELEMENTS = 6


class DoubleFor:
    """A module whose float32 is float64."""

    def __init__(self, module):
        self._module = module
        self.float32 = module.float64

    def __getattr__(self, name):
        return getattr(self._module, name)


def velocity(x, t):
    return torch.sin(3 * x + t / 200) + 0.5 * x


def unipc(shift):
    return unipc_module.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def run(scheduler, generator):
    scheduler.set_begin_index(0)
    z = torch.randn(len(scheduler.timesteps), 1, ELEMENTS, generator=generator)
    x = [torch.randn(1, ELEMENTS, generator=generator)]
    v = []
    for i, t in enumerate(scheduler.timesteps):
        euler_module.randn_tensor = lambda shape, i=i, **_: z[i].reshape(shape)
        v.append(velocity(x[-1], float(t)))
        x.append(scheduler.step(v[-1], t, x[-1], return_dict=False)[0])
    assert all(tensor.dtype == torch.float64 for tensor in x), [tensor.dtype for tensor in x]
    return {"levels": scheduler.sigmas.clone(), "timesteps": scheduler.timesteps.double(), "x": torch.cat(x),
            "v": torch.cat(v), "z": z[:, 0].clone()}


def run_tdm(levels, eta, generator):
    z = torch.randn(len(levels) - 1, ELEMENTS, generator=generator)
    x = [torch.randn(ELEMENTS, generator=generator)]
    v = []
    for i in range(len(levels) - 1):
        level, following = levels[i], levels[i + 1]
        v.append(velocity(x[-1], 1000 * level))
        x0 = x[-1] - level * v[-1]
        eps = x[-1] + (1 - level) * v[-1]
        x.append((1 - following) * x0 + following * (eta * eps + math.sqrt(1 - eta**2) * z[i]))
    levels = torch.tensor(levels)
    return {"levels": levels, "timesteps": 1000 * levels[:-1], "x": torch.stack(x), "v": torch.stack(v), "z": z}


def main():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    euler_module.np, euler_module.torch = DoubleFor(numpy), DoubleFor(torch)
    unipc_module.np = DoubleFor(numpy)
    generator = torch.Generator().manual_seed(7)
    cases, tensors = [], {}

    def add(results, **facts):
        name = f"case{len(cases)}"
        cases.append({"name": name, **facts})
        tensors.update({f"{name}.{key}": value.contiguous() for key, value in results.items()})

    for steps in (50, 8, 4):
        for shift in (3.0, 5.0, 8.0):
            sizes = {"steps": steps, "shift": shift}
            for sampler, eta in (("EULER", 1.0), ("TDM", 0.0)):
                scheduler = euler_module.FlowMatchEulerDiscreteScheduler(shift=shift, stochastic_sampling=eta == 0)
                scheduler.set_timesteps(steps)
                add(run(scheduler, generator), sampler=sampler, eta=eta, schedule="DIFFUSERS_EULER", **sizes)
            scheduler = unipc(shift)
            scheduler.set_timesteps(steps)
            add(run(scheduler, generator), sampler="UNIPC", eta=1.0, schedule="DIFFUSERS_UNIPC", **sizes)
            scheduler = unipc(shift)
            scheduler.set_timesteps(sigmas=numpy.linspace(0.999, 0, steps + 1)[:-1])
            add(run(scheduler, generator), sampler="UNIPC", eta=1.0, schedule="OFFICIAL_UNIPC", **sizes)
    for listed in ([1.0, 0.75, 0.5, 0.25, 0.0], [0.999, 0.749, 0.499, 0.249, 0.0], [1.0, 0.757, 0.522, 0.0]):
        add(run_tdm(listed, 0.9, generator), sampler="TDM", eta=0.9, schedule="", steps=len(listed) - 1, shift=1.0)
    save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})


if __name__ == "__main__":
    main()
