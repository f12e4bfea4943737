"""Files written here are read by other programs, and the other way round."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageSequence
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def check_animation(stem, size, frames, stride, fps):
    """Of `frames` frames at `fps`, every `stride`th is shown."""
    image = Image.open(stem.with_suffix(".png"))
    shown = (frames + stride - 1) // stride
    check(image.mode == "RGB" and image.size == size and image.n_frames == shown, f"{stem.name}.png: frames")
    check(image.info["loop"] == 0, f"{stem.name}.png: endless")
    original = stem.with_suffix(".rgb").read_bytes()
    frame_bytes = 3 * size[0] * size[1]
    milliseconds = 0
    for number, frame in enumerate(ImageSequence.Iterator(image)):
        milliseconds += frame.info["duration"]
        begin = number * stride * frame_bytes
        if frame.convert("RGB").tobytes() != original[begin : begin + frame_bytes]:
            check(False, f"{stem.name}.png: pixels of frame {number}")
    check(abs(milliseconds - 1000 * shown * stride / fps) < 1, f"{stem.name}.png: {milliseconds} ms")


def main(program):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sheet = subprocess.run([program, "write", name], check=True, capture_output=True).stdout

        ramp = 0.25 * torch.arange(24, dtype=torch.float32) - 1
        expected = {
            "ramp": ramp.reshape(2, 3, 4),
            "scalar": torch.tensor(1 / 3, dtype=torch.float64),
            "counts": torch.tensor([-1, 2**40]),
            "flags": torch.tensor([True, False, True]),
            "none": torch.empty((0, 5), dtype=torch.float16),
            "half": torch.tensor([[1.5, -3]], dtype=torch.bfloat16),
        }
        found = load_file(folder / "types.safetensors")
        check(found.keys() == expected.keys(), "safetensors: names")
        for key, tensor in expected.items():
            same = found[key].dtype == tensor.dtype and found[key].shape == tensor.shape
            check(same and torch.equal(found[key], tensor), f"safetensors: {key}")
        with safe_open(folder / "types.safetensors", "pt") as file:
            check(file.metadata() == {"format": "pt"}, "safetensors: metadata")

        index = json.loads((folder / "set/index.json").read_text())
        sample = index["samples"][0]
        shard = load_file(folder / "set" / index["shards"][sample["shard"]]["file"])
        latent = shard[sample["id"] + ".latent"]
        check(list(latent.shape) == sample["latent"], "data set: shape")
        check(torch.equal(latent, ramp.reshape(2, 1, 3, 4)), "data set: latent")
        mean = torch.tensor(index["mean"])
        check(torch.allclose(mean, latent.mean((1, 2, 3))), "data set: mean")
        std = torch.tensor(index["std"])
        check(torch.allclose(std, latent.std((1, 2, 3), correction=0)), "data set: std")

        image = Image.open(folder / "sheet.png")
        check(image.mode == "RGB" and image.tobytes() == sheet, "png: pixels")

        check_animation(folder / "short", (96, 64), frames=9, stride=1, fps=16)
        check_animation(folder / "long", (50, 30), frames=41, stride=3, fps=24)

        save_file(
            {
                "b": torch.full((2, 3), 0.5, dtype=torch.float16),
                "a": torch.arange(5, dtype=torch.float32),
                "c": torch.tensor(-2.0, dtype=torch.bfloat16),
            },
            folder / "theirs.safetensors",
            metadata={"format": "pt"},
        )
        lines = subprocess.run(
            [program, "read", folder / "theirs.safetensors"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        check(sorted(lines) == ["a F32 5 sum 10", "b F16 2 3 sum 3", "c BF16 sum -2"], "theirs")


if __name__ == "__main__":
    main(sys.argv[1])
