"""Writes the tables and steps of diffusers' CogVideoX schedulers into <folder>/ddpm.safetensors.

SCHEDULE.powers: alphas_cumprod of each schedule; SPACING.N.timesteps: the timesteps of N steps; and for N steps of
DDIM and DPM (trailing, on the schedule "cogvideox_2b") ddim.N.x, dpm.N.x [steps + 1, elements] the sample from the
first to the last, with v, x.N [steps, elements] given as predictions and dpm.N.z the noise of every step.
All in float64.
"""
import pathlib
import sys

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from diffusers.schedulers import scheduling_dpm_cogvideox
from safetensors.torch import save_file

SCHEDULES = {
    "plain": dict(snr_shift_scale=1.0, rescale_betas_zero_snr=False),
    "shifted": dict(snr_shift_scale=3.0, rescale_betas_zero_snr=False),
    "cogvideox_5b": dict(snr_shift_scale=1.0, rescale_betas_zero_snr=True),
    "cogvideox_2b": dict(snr_shift_scale=3.0, rescale_betas_zero_snr=True),
}
STEPS = (1, 4, 7, 50)
ELEMENTS = 5


def main():
    torch.manual_seed(7)
    tensors = {}
    for name, options in SCHEDULES.items():
        ddim, dpm = CogVideoXDDIMScheduler(**options), CogVideoXDPMScheduler(**options)
        assert torch.equal(ddim.alphas_cumprod, dpm.alphas_cumprod)
        tensors[f"{name}.powers"] = ddim.alphas_cumprod
    for spacing in ("linspace", "leading", "trailing"):
        for steps in STEPS:
            scheduler = CogVideoXDDIMScheduler(timestep_spacing=spacing)
            scheduler.set_timesteps(steps)
            tensors[f"{spacing}.{steps}.timesteps"] = scheduler.timesteps.to(torch.float64)
    options = dict(SCHEDULES["cogvideox_2b"], prediction_type="v_prediction", timestep_spacing="trailing")
    for steps in STEPS:
        velocities = torch.randn(steps, ELEMENTS, dtype=torch.float64)
        tensors[f"v.{steps}"] = velocities
        start = torch.randn(ELEMENTS, dtype=torch.float64)

        ddim = CogVideoXDDIMScheduler(**options)
        ddim.set_timesteps(steps)
        x = [start]
        for t, v in zip(ddim.timesteps.tolist(), velocities):
            x.append(ddim.step(v, t, x[-1], return_dict=False)[0])
        tensors[f"ddim.{steps}.x"] = torch.stack(x)

        # The scheduler draws twice in a step of second order and uses the second: here both are the same.
        dpm = CogVideoXDPMScheduler(**options)
        dpm.set_timesteps(steps)
        noise = torch.randn(steps, ELEMENTS, dtype=torch.float64)
        tensors[f"dpm.{steps}.z"] = noise
        x, last, back = [start], None, None
        for i, (t, v) in enumerate(zip(dpm.timesteps.tolist(), velocities)):
            scheduling_dpm_cogvideox.randn_tensor = lambda *_, **__: noise[i]
            following, last = dpm.step(v, last, t, back, x[-1])
            x.append(following)
            back = t
        tensors[f"dpm.{steps}.x"] = torch.stack(x)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.double().contiguous() for k, v in tensors.items()}, folder / "ddpm.safetensors")


if __name__ == "__main__":
    main()
