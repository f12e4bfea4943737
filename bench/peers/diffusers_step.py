#!/usr/bin/env python3
"""Training steps (forward, backward, AdamW) of diffusers' WanTransformer3DModel with dense attention.

Prints one JSON line: the configuration, the milliseconds of every step, their median, the peak memory.
bench/train_step.py and bench/device_train_step.py run this beside Sprocket's own programs, which print the same keys.
"""
import argparse
import json
import resource
import statistics
import time

import diffusers
import torch


def build_model(arguments):
    torch.manual_seed(0)
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), in_channels=16, out_channels=16, freq_dim=256,
        num_attention_heads=arguments.heads, attention_head_dim=arguments.dim // arguments.heads,
        ffn_dim=arguments.ffn_dim, num_layers=arguments.layers, text_dim=arguments.text_dim)
    if arguments.checkpointing:
        model.enable_gradient_checkpointing()
    return model.to(arguments.device).train()


def peak_rss_mib():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def wait_for(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed_steps(model, arguments):
    """Milliseconds of each step after those that are not counted: one, or three where they are compiled."""
    frames, height, width = arguments.grid
    device = arguments.device
    video = torch.randn(1, 16, frames, 2 * height, 2 * width, device=device)
    noise = torch.randn_like(video)
    text = torch.randn(1, arguments.text_tokens, arguments.text_dim, device=device)
    level = 0.5
    noisy, velocity = (1 - level) * video + level * noise, noise - video
    timestep = torch.tensor([1000 * level], device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")
    uncounted = 3 if arguments.compile else 1
    if arguments.compile:
        model = torch.compile(model)
    bf16 = arguments.dtype == "bf16"
    times = []
    for _ in range(uncounted + arguments.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            predicted = model(hidden_states=noisy, timestep=timestep, encoder_hidden_states=text, return_dict=False)[0]
        torch.nn.functional.mse_loss(predicted.float(), velocity).backward()
        optimizer.step()
        wait_for(device)
        times.append(1e3 * (time.perf_counter() - start))
    return times[uncounted:]


def extents(text):
    """(t, h, w) of "8x32x32"."""
    grid = tuple(int(part) for part in text.split("x"))
    if len(grid) != 3 or min(grid) < 1:
        raise argparse.ArgumentTypeError(f"expected tokens as TxHxW, found {text}")
    return grid


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=extents, default=(8, 32, 32), help="tokens t x h x w, for example 8x32x32")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="bf16: autocast")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--checkpointing", action="store_true", help="compute every block again in the backward")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    for name, value in dict(dim=384, heads=6, layers=6, ffn_dim=1536, text_dim=512, text_tokens=64).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = build_model(arguments)
    before = peak_rss_mib()
    times = timed_steps(model, arguments)
    frames, height, width = arguments.grid
    tokens = frames * height * width
    median = statistics.median(times)
    of_device = {} if arguments.device == "cpu" else {
        "device": torch.cuda.get_device_name(), "compiled": arguments.compile, "checkpointing": arguments.checkpointing,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(), "peak_reserved_bytes": torch.cuda.max_memory_reserved()}
    print(json.dumps({
        "program": f"diffusers {diffusers.__version__}, torch {torch.__version__}",
        "attention": "dense",
        "sparsity": 0.0,
        "grid": list(arguments.grid),
        "tokens": tokens,
        "dtype": arguments.dtype,
        "threads": arguments.threads,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps_ms": [round(t, 1) for t in times],
        "median_ms": round(median, 1),
        "tokens_per_s": round(1e3 * tokens / median, 1),
        "peak_rss_mib": peak_rss_mib(),
        "rss_before_mib": before,
        **of_device,
    }))


if __name__ == "__main__":
    main()
