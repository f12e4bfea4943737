"""TensorBoard's own reader finds in a run's event files what metrics.jsonl and the samples hold.

    tensorboard_peer_test.py PROGRAM

PROGRAM is tensorboard_run: steps 1 to 6, then 5 to 8 once more from the checkpoint of step 4.
"""

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator, event_file_loader

MADE_AGAIN = {5, 6}
STEPS = range(1, 9)
SAMPLES = 3


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def accumulate(folder, purge=True):
    everything = {key: 0 for key in event_accumulator.DEFAULT_SIZE_GUIDANCE}
    accumulator = event_accumulator.EventAccumulator(
        str(folder), size_guidance=everything, purge_orphaned_data=purge
    )
    return accumulator.Reload()


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def curves_of_line(line):
    """{tag: value}, written down once more from docs/metrics.md."""
    groups = {
        "throughput": ("step_seconds", "tokens_per_second", "tflops_dense_equivalent", "tflops_executed"),
        "time": ("data_wait_seconds", "checkpoint_stall_seconds", "compute_share", "exposed_communication_share"),
        "machine": ("memory_peak_bytes",),
        "faults": ("skipped_steps", "bad_samples", "failed_saves"),
    }
    group_of = {key: group for group, keys in groups.items() for key in keys}
    curves = {}
    for key, value in line.items():
        if isinstance(value, dict):
            for name in ("mean", "min", "max"):
                curves[f"attention/{key}_{name}"] = value[name]
            for layer, of_layer in enumerate(value["by_layer"]):
                curves[f"{key}/layer_{layer:02}"] = of_layer
        elif key != "step":
            curves[f"{group_of[key]}/{key}" if key in group_of else key] = value
    return curves


def points_of(accumulator, tag):
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def check_curves(accumulator, expected, what):
    """`expected`: {tag: [(step, value)]} with every number as its nearest float."""
    for tag, points in expected.items():
        rounded = [(step, float(numpy.float32(value))) for step, value in points]
        if points_of(accumulator, tag) != rounded:
            check(False, f"{what}: {tag}: {points_of(accumulator, tag)}, expected {rounded}")
    check(True, f"{what}: {len(expected)} curves")


def check_samples(run, accumulator):
    check(sorted(accumulator.Tags()["images"]) == [f"sample/{i}" for i in range(SAMPLES)], "samples: tags")
    for number in range(SAMPLES):
        events = accumulator.Images(f"sample/{number}")
        check([event.step for event in events] == [2, 4, 6, 8], f"sample/{number}: steps")
        for event in events:
            animation = Image.open(io.BytesIO(event.encoded_image_string))
            size = (event.width, event.height)
            check(animation.size == size and animation.n_frames == 9, f"sample/{number} of step {event.step}: 9 frames of {event.width} x {event.height}")
            # Below the real clip's row, the sheet shows the sample's first frame first.
            sheet = Image.open(run / f"samples/step_{event.step:08}_{number}.png").convert("RGB")
            left, top = 2, 6 + event.height + 6
            cell = sheet.crop((left, top, left + event.width, top + event.height))
            same = cell.tobytes() == animation.convert("RGB").tobytes()
            check(same, f"sample/{number} of step {event.step}: the sample of the sheet")
        prompt = accumulator.SummaryMetadata(f"sample/{number}").summary_description
        check(prompt == f"clip {number}", f"sample/{number}: prompt")
        steps = [step for step, _ in points_of(accumulator, f"sample_psnr/{number}")]
        check(steps == [2, 4, 6, 8], f"sample_psnr/{number}: steps")


def check_truncation(path, folder):
    """A file that was cut off anywhere is read up to its last whole event."""
    whole = path.read_bytes()
    events = list(event_file_loader.LegacyEventFileLoader(str(path)).Load())
    ends, end = [], 0
    while end < len(whole):
        end += 16 + int.from_bytes(whole[end : end + 8], "little")
        ends.append(end)
    check(len(events) == len(ends) and end == len(whole), f"{len(events)} events")
    sizes = sorted({size + shift for size in [0, *ends] for shift in (-9, -1, 0, 1, 7, 11, 13)})
    cut = folder / path.name
    for size in sizes:
        if not 0 <= size <= len(whole):
            continue
        cut.write_bytes(whole[:size])
        found = list(event_file_loader.LegacyEventFileLoader(str(cut)).Load())
        if found != events[: sum(end <= size for end in ends)]:
            check(False, f"cut off at {size} of {len(whole)} bytes: {len(found)} events")
    check(True, "truncated files")


def main(program):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([program, name], check=True, stdout=subprocess.DEVNULL)
        run = folder / "run"
        files = sorted((run / "tensorboard").iterdir())
        check(len(files) == 2, f"a file for each part: {[file.name for file in files]}")

        metrics = lines_of(run / "metrics.jsonl")
        check([line["step"] for line in metrics] == list(STEPS), "metrics.jsonl: steps")
        expected = {}
        for line in metrics:
            for tag, value in curves_of_line(line).items():
                expected.setdefault(tag, []).append((line["step"], value))
        validation = {}
        for line in lines_of(run / "validation.jsonl"):
            values = {"loss": line["loss"]} | {f"loss_level_{i}": v for i, v in enumerate(line["by_level"])}
            for key, value in values.items():
                validation.setdefault(f"validation/{key}", []).append((line["step"], value))
        check([step for step, _ in validation["validation/loss"]] == [0, 2, 4, 6, 8], "validation.jsonl: steps")

        accumulator = accumulate(run / "tensorboard")
        check_curves(accumulator, expected, "metrics")
        check_curves(accumulator, validation, "validation")
        tags = {tag for tag in accumulator.Tags()["scalars"] if not tag.startswith("sample_psnr/")}
        check(tags == expected.keys() | validation.keys(), f"no other curves: {sorted(tags)}")
        check_samples(run, accumulator)

        # Without the purge both versions of the steps made again are there, and differ.
        points = points_of(accumulate(run / "tensorboard", purge=False), "loss")
        for step in MADE_AGAIN:
            values = [value for at, value in points if at == step]
            check(len(values) == 2, f"step {step} was made twice: {values}")
        former = accumulate(files[0])
        check([step for step, _ in points_of(former, "loss")] == list(range(1, 7)), "the former part alone")
        differ = points_of(former, "lr")[4] != points_of(accumulator, "lr")[4]
        check(differ, "the learning rate of step 5 is the later one")

        (folder / "cut").mkdir()
        check_truncation(files[1], folder / "cut")


if __name__ == "__main__":
    main(sys.argv[1])
