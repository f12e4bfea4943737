#!/usr/bin/env python3
"""How near a distilled student of few steps comes to its teacher of many, beside the teacher at as few steps.

Every model samples the same prompts from the same noise (`sprocket sample`, several seeds). Distances to the
teacher of many steps: PSNR of each video against the teacher's of the same prompt and seed, and the Frechet
distance between the frames of all videos in a fixed random feature space. `--few-sampling` may be given several
times: the student's rival is the best of them. Prints JSON lines.
"""
import argparse
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import numpy
import torch
from PIL import Image

FEATURES = 48  # far fewer than frames
COLUMN_GAP, ROW_GAP = 2, 6  # of a contact sheet, in pixels


def sample(arguments, checkpoint, sampling, prompts, seed, folder):
    """Frames [video, frame, H, W, 3] in 0..1 of the contact sheets, and seconds of the command."""
    prompt_text = " ".join(f"prompt: {json.dumps(p)}" for p in prompts)
    command = ["mpirun", "--oversubscribe", "-np", str(arguments.ranks), arguments.sprocket, "sample", "--resume", checkpoint,
               "--output", str(folder), "--set", f"sampling {{ {sampling} seed: {seed} {prompt_text} }}"]
    for change in arguments.set:
        command += ["--set", change]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = time.monotonic() - start
    videos = []
    for sheet in sorted(folder.glob("*.png")):
        pixels = numpy.asarray(Image.open(sheet).convert("RGB"), dtype=numpy.float32) / 255
        # The sample is the last row of frames; a caption of the data set has the real clip above it.
        width, height = arguments.width, arguments.height
        row = pixels[-height - ROW_GAP:-ROW_GAP]
        lefts = range(COLUMN_GAP, row.shape[1] - width, width + COLUMN_GAP)
        videos.append(numpy.stack([row[:, left:left + width] for left in lefts]))
    return numpy.stack(videos), seconds


def features(videos):
    """Of every frame: means of a fixed random convolutional network."""
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(videos.reshape(-1, *videos.shape[2:])).permute(0, 3, 1, 2) - 0.5
    channels = 3
    for out in (16, 32, FEATURES):
        weight = torch.randn(out, channels, 5, 5, generator=generator) * (2 / (channels * 25)) ** 0.5
        x = torch.relu(torch.nn.functional.conv2d(x, weight, stride=2))
        channels = out
    return x.mean((2, 3)).double().numpy()


def frechet(a, b):
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)); the root's trace by the eigenvalues of A B."""
    difference = a.mean(0) - b.mean(0)
    covariance_a, covariance_b = numpy.cov(a.T), numpy.cov(b.T)
    values = numpy.linalg.eigvals(covariance_a @ covariance_b)
    root = numpy.sqrt(numpy.maximum(values.real, 0)).sum()
    return float(difference @ difference + numpy.trace(covariance_a) + numpy.trace(covariance_b) - 2 * root)


def contrast(videos):
    """Mean standard deviation of a channel within a frame."""
    return float(videos.std((2, 3)).mean())


def psnr(a, b):
    errors = ((a - b) ** 2).reshape(len(a), -1).mean(1)
    return float((-10 * numpy.log10(errors)).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sprocket", default="build/bin/sprocket")
    parser.add_argument("--teacher", required=True, help="run or checkpoint")
    parser.add_argument("--student", required=True, help="run or checkpoint")
    parser.add_argument("--prompt", action="append", default=[])
    parser.add_argument("--prompts", help="a file of prompts, one a line")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--teacher-sampling", default="steps: 50 guidance: 1")
    parser.add_argument("--few-sampling", action="append", help="the teacher at few steps; default: steps: 4 guidance: 1")
    parser.add_argument("--student-sampling", default="guidance: 1 sampler: TDM timestep: [999, 749, 499, 249]")
    parser.add_argument("--set", action="append", default=[], help="changes every job, as in sprocket sample")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--height", type=int, default=112)
    parser.add_argument("--output", help="JSON lines are added to this file")
    arguments = parser.parse_args()
    prompts = arguments.prompt + (pathlib.Path(arguments.prompts).read_text(encoding="utf-8").splitlines() if arguments.prompts else [])
    if not prompts:
        parser.error("expected --prompt or --prompts, found neither")
    few = arguments.few_sampling or ["steps: 4 guidance: 1"]
    models = [("teacher", arguments.teacher, arguments.teacher_sampling),
              *(("teacher, few steps", arguments.teacher, sampling) for sampling in few),
              ("student", arguments.student, arguments.student_sampling)]
    videos = [[] for _ in models]
    seconds = [[] for _ in models]
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for number, (_, checkpoint, sampling) in enumerate(models):
                made, taken = sample(arguments, checkpoint, sampling, prompts, seed,
                                     pathlib.Path(folder) / f"{seed}_{number}")
                videos[number].append(made)
                seconds[number].append(taken)
    # The reference's own spread: one half of its seeds against the other.
    reference = numpy.concatenate(videos[0])
    half = len(reference) // 2
    lines = [{"model": "teacher, half against half", "frechet": frechet(features(reference[:half]), features(reference[half:]))}]
    for number, (name, _, sampling) in enumerate(models):
        own = numpy.concatenate(videos[number])
        line = {"model": name, "sampling": sampling, "videos": len(own), "contrast": contrast(own), "command_seconds": sorted(seconds[number])[len(seconds[number]) // 2]}
        if number > 0:
            line |= {"frechet": frechet(features(own), features(reference)), "psnr_db": psnr(own, reference)}
        lines.append(line)
    for line in lines:
        line |= {"prompts": len(prompts), "seeds": arguments.seeds, "first_seed": arguments.first_seed, "machine": platform.processor() or platform.machine(),
                 "system": platform.platform(), "torch": torch.__version__}
        print(json.dumps(line))
        if arguments.output:
            with open(arguments.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
