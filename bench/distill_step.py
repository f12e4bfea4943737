#!/usr/bin/env python3
"""What a step of distillation costs beside its evaluations one by one.

Three networks of one model and one attention (dense). In turn, several times: steps of `sprocket train`, which are
one evaluation with a backward and an update each; evaluations without one, from `sprocket profile --job sample`; and
steps of `sprocket distill` (TDM), each of which says how many of both it made. The ratio is a step's time over the sum
of its evaluations' times. Also the peak memory of a training and of a distillation. Prints JSON lines.
"""
import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

JOB = """
model {{ dim: {dim} heads: {heads} layers: {layers} ffn_dim: {ffn} latent_channels: 16 text_dim: 64 text_tokens: 16 }}
attention {{ method: DENSE }}
data {{ path: "{data}" }}
training {{ steps: {steps} {lora} optimizer {{ learning_rate: 1e-5 }} }}
sampling {{ guidance: 1 }}
output {{ directory: "{folder}" log_interval: 1 }}
profile {{ steps: 0 }}
"""
DISTILLATION = 'distillation {{ teacher {{ weights: "{weights}" }} guidance: 1 tdm {{ segments: 4 skip_above: 0 }} }}'
WARM_UP = 2  # steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sprocket", default="build/bin/sprocket")
    parser.add_argument("--data", required=True, help="data set of latents of 16 channels with texts of 16 x 64")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each run, the first two left out")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--ffn", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=0, help="of adapters; 0: all weights")
    parser.add_argument("--output", help="JSON lines are added to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        line = measure(arguments, folder)
    line |= {"machine": platform.processor() or platform.machine(), "system": platform.platform(),
             "arguments": {key: value for key, value in vars(arguments).items() if key not in ("output", "data", "sprocket")}}
    print(json.dumps(line))
    if arguments.output:
        with open(arguments.output, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def measure(arguments, folder):
    fields = {"dim": arguments.dim, "heads": arguments.heads, "layers": arguments.layers, "ffn": arguments.ffn,
              "data": arguments.data, "steps": arguments.steps, "folder": folder / "run"}
    weights = folder / "weights"
    plain, trained = folder / "plain.txtpb", folder / "trained.txtpb"
    plain.write_text(JOB.format(lora="", **fields))
    lora = f"lora {{ rank: {arguments.rank} }}" if arguments.rank else ""
    trained.write_text(JOB.format(lora=lora, **fields))

    def run(*command):
        subprocess.run(["mpirun", "--oversubscribe", "-np", str(arguments.ranks), arguments.sprocket, *map(str, command)],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def metrics(run_folder):
        lines = (run_folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(text) for text in lines[WARM_UP:]]

    run("train", "--config", plain, "--set", "training.steps: 1", "--output", weights)
    passes, evaluations, ratios, peaks = [], [], [], {"train": 0, "distill": 0}
    steps = []
    for number in range(arguments.rounds):
        own = folder / str(number)
        run("train", "--config", trained, "--set", f'model.weights: "{weights}"', "--output", own / "train")
        made = metrics(own / "train")
        passes.append(statistics.median(step["step_seconds"] for step in made))
        peaks["train"] = max([peaks["train"]] + [step["memory_peak_bytes"] for step in made])
        # With the adapters, if there are any: two of the three networks have them.
        run("profile", "--config", trained, "--set", f'model.weights: "{weights}"', "--job", "sample", "--resume", own / "train",
            "--steps", arguments.steps, "--warmup", WARM_UP, "--output", own / "sample")
        profile = json.loads((own / "sample" / "profile.json").read_text())
        evaluations.append(statistics.median(profile["step"]["each_seconds"]))
        run("distill", "--config", trained, "--set", DISTILLATION.format(weights=weights), "--output", own / "distill")
        for step in metrics(own / "distill"):
            counts = step["evaluations"].values()
            expected = (sum(count["plain"] for count in counts) * evaluations[-1] +
                        sum(count["with_graph"] for count in counts) * passes[-1])
            ratios.append(step["step_seconds"] / expected)
            steps.append(step["step_seconds"])
            peaks["distill"] = max(peaks["distill"], step["memory_peak_bytes"])
    return {"ratio": statistics.median(ratios), "ratios": [min(ratios), max(ratios)],
            "step_seconds": statistics.median(steps), "pass_seconds": statistics.median(passes),
            "evaluation_seconds": statistics.median(evaluations), "peak_bytes": peaks,
            "peak_ratio": peaks["distill"] / peaks["train"]}


if __name__ == "__main__":
    sys.exit(main())
