#!/usr/bin/env python3
"""Validation loss against the budget of imports, its domains and its form, at equal steps.

    scripts/build
    bench/budget_study.py --config JOB --work FOLDER [--start-steps 2000] [--steps 300]
    bench/budget_study.py --plot-only

JOB is a job of `sprocket train` with the sparse attention of the study (method, sparsity), data.path and
training.validation.path. First a dense model is trained for --start-steps (or taken from --weights); then one run from
its weights for every case, all with the job's seeds: the same clips, noise levels and noise in the same order, and the
same validation draws. Adds one JSON line per case to bench/results/budget_study.jsonl and draws them as a PNG. A case
that has its line is skipped, so the study can be stopped and called again; an unfinished run starts again.

Loss and coverage are those of one rank's run: a budget is a property of the model and does not need the ranks.
"""
import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time

from machine import ROOT, stamp

DENSE = ("attention { method: DENSE order: KD domains: 1 budget_form: FLAT budget_head_group: 0 "
         "max_coverage { start: 1 } }")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="the job")
    parser.add_argument("--set", action="append", default=[], help="changes the job, as in sprocket train")
    parser.add_argument("--work", help="folder of the runs")
    parser.add_argument("--weights", help="a dense model to start from instead of training one")
    parser.add_argument("--start-steps", type=int, default=2000, help="of the dense model (2000)")
    parser.add_argument("--steps", type=int, default=300, help="of every case (300)")
    parser.add_argument("--domains", default="2,4,8")
    parser.add_argument("--budgets", default="1,.5,.25,.1,0")
    parser.add_argument("--forms", default="FLAT,TREE")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--binary", default=os.path.join(ROOT, "build/bin/sprocket"))
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/budget_study.jsonl"))
    parser.add_argument("--plot", help="PNG; by default beside the output")
    parser.add_argument("--plot-only", action="store_true", help="draw the lines there are")
    parsed = parser.parse_args()
    if not parsed.plot_only and not (parsed.config and parsed.work):
        parser.error("--config and --work are needed (or --plot-only)")
    parsed.plot = parsed.plot or os.path.splitext(parsed.output)[0] + ".png"
    return parsed


def cases(args):
    """Each case once: a budget of 1 or 0 is the same in both forms, and so is everything with two domains."""
    yield {"form": "DENSE", "domains": 1, "budget": 1}
    for domains in map(int, args.domains.split(",")):
        for budget in map(float, args.budgets.split(",")):
            for form in args.forms.split(","):
                alike = domains == 2 or budget in (0, 1)
                if not (alike and form != args.forms.split(",")[0]):
                    yield {"form": form, "domains": domains, "budget": budget}


def settings(case):
    if case["form"] == "DENSE":
        return DENSE
    return (f"attention {{ domains: {case['domains']} budget_form: {case['form']} "
            f"max_coverage {{ start: {case['budget']:g} }} }}")


def train(args, folder, sets):
    command = [args.binary, "train", "--config", args.config, "--output", folder, "--resume", "latest"]
    for text in args.set + sets:
        command += ["--set", text]
    if args.ranks > 1:
        launch = ["mpirun", "--bind-to", "none", "--oversubscribe", "-np", str(args.ranks)]
        command = launch + (["--allow-run-as-root"] if os.geteuid() == 0 else []) + command
    os.makedirs(folder, exist_ok=True)
    start = time.monotonic()
    with open(os.path.join(folder, "log.txt"), "w", encoding="utf-8") as log:
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode != 0:
            sys.exit(f"{' '.join(command)} failed; see {log.name}")
    return time.monotonic() - start


def lines_of(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def newest_checkpoint(folder):
    return max(name for name in os.listdir(folder) if name.startswith("step_") and ".tmp" not in name)


def dense_weights(args):
    if args.weights:
        return args.weights
    folder = os.path.join(args.work, "dense_start")
    train(args, folder, [DENSE, f"training.steps: {args.start_steps}"])
    return os.path.join(folder, newest_checkpoint(folder), "model")


def study_id(args, weights):
    """What the cases of a study share; lines of another study are left alone."""
    digest = hashlib.sha256()
    with open(args.config, "rb") as file:
        digest.update(file.read())
    digest.update(json.dumps([args.set, args.steps, args.start_steps, args.ranks]).encode())
    if args.weights:
        digest.update(os.path.abspath(weights).encode())
    return digest.hexdigest()[:12]


def run_case(args, case, study, weights):
    name = f"{study}_{case['form'].lower()}_{case['domains']}_{case['budget']:g}"
    folder = os.path.join(args.work, name)
    seconds = train(args, folder, [
        f'model.weights: "{os.path.abspath(weights)}"',
        f"training {{ steps: {args.steps} validation {{ interval: {args.steps} }} }}",
        f"output {{ checkpoint_interval: 0 sample_interval: 0 log_interval: 1 }}", settings(case)])
    validation = lines_of(os.path.join(folder, "validation.jsonl"))
    metrics = lines_of(os.path.join(folder, "metrics.jsonl"))
    if not validation or validation[-1]["step"] != args.steps:
        sys.exit(f"{folder}: no validation loss; the job needs training.validation.path")
    last = metrics[-1]
    return {"study": study, **case, "steps": args.steps, "ranks": args.ranks,
            "loss_before": validation[0]["loss"] if validation[0]["step"] == 0 else None,
            "loss": validation[-1]["loss"], "by_level": validation[-1]["by_level"],
            "training_loss": statistics.fmean(line["loss"] for line in metrics[-20:]),
            "density": last["density"]["mean"],
            "domain_coverage": last.get("domain_coverage", {}).get("mean"),
            "kept_mass": last.get("kept_mass", {}).get("mean"),
            "median_step_s": statistics.median(line["step_seconds"] for line in metrics),
            "seconds": round(seconds, 1), "job": os.path.relpath(args.config, ROOT), **stamp()}


def table(rows):
    dense = next((row["loss"] for row in rows if row["form"] == "DENSE"), None)
    print(f"{'form':6} {'domains':>7} {'budget':>7} {'loss':>9} {'to dense':>9} {'kept mass':>10} {'coverage':>9}")
    for row in rows:
        part = "" if dense is None else f"{100 * (row['loss'] / dense - 1):+8.2f}%"
        kept = "-" if row["kept_mass"] is None else f"{row['kept_mass']:.3f}"
        coverage = "-" if row["domain_coverage"] is None else f"{row['domain_coverage']:.3f}"
        print(f"{row['form']:6} {row['domains']:7} {row['budget']:7g} {row['loss']:9.5f} {part:>9} {kept:>10} "
              f"{coverage:>9}")


def series(rows):
    """Points (budget, loss) by domains and form; both forms share the points that are alike."""
    lines = {}
    for row in rows:
        if row["form"] != "DENSE":
            lines.setdefault((row["domains"], row["form"]), {})[row["budget"]] = row["loss"]
    for (domains, form), points in lines.items():
        other = lines.get((domains, "FLAT" if form == "TREE" else "TREE"), {})
        for budget in (0, 1):
            if budget in other:
                points.setdefault(budget, other[budget])
    return {key: points for key, points in lines.items() if len(points) > 1}


def draw(rows, path):
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        print("no picture: Pillow is not installed (.deps/python has it)", file=sys.stderr)
        return
    lines = series(rows)
    dense = next((row["loss"] for row in rows if row["form"] == "DENSE"), None)
    budgets = sorted({budget for points in lines.values() for budget in points}, reverse=True)
    losses = [loss for points in lines.values() for loss in points.values()] + ([dense] if dense else [])
    if len(budgets) < 2:
        print("no picture: fewer than two budgets", file=sys.stderr)
        return
    low, high = min(losses), max(losses)
    margin = 0.06 * (high - low) or 1e-3
    low, high = low - margin, high + margin
    width, height, left, right, top, bottom = 1200, 760, 130, 250, 60, 90
    colours = {2: "#1b6ca8", 4: "#c8553d", 8: "#2a7f4f"}
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    font, small = ImageFont.load_default(22), ImageFont.load_default(18)

    def x_of(budget):
        return left + (width - left - right) * budgets.index(budget) / (len(budgets) - 1)

    def y_of(loss):
        return top + (height - top - bottom) * (high - loss) / (high - low)

    for i in range(6):
        loss = low + (high - low) * i / 5
        pen.line([(left, y_of(loss)), (width - right, y_of(loss))], fill="#dddddd")
        pen.text((left - 10, y_of(loss)), f"{loss:.4f}", fill="black", font=small, anchor="rm")
    for budget in budgets:
        pen.text((x_of(budget), height - bottom + 12), f"{budget:g}", fill="black", font=small, anchor="ma")
    pen.text(((left + width - right) / 2, height - 34), "budget (max_coverage)", fill="black", font=font, anchor="ma")
    pen.text((left, 18), f"validation loss after {rows[-1]['steps']} steps", fill="black", font=font)
    if dense:
        for x in range(left, width - right, 14):
            pen.line([(x, y_of(dense)), (x + 7, y_of(dense))], fill="black", width=2)
        pen.text((width - right + 12, y_of(dense)), "dense", fill="black", font=small, anchor="lm")
    for number, ((domains, form), points) in enumerate(sorted(lines.items())):
        colour = colours.get(domains, "#7a4fa3")
        ordered = [(x_of(budget), y_of(points[budget])) for budget in budgets if budget in points]
        for start, end in zip(ordered, ordered[1:]):
            pieces = 1 if form == "FLAT" else 24
            for piece in range(0, pieces, 2 if form == "TREE" else 1):
                ends = [tuple(a + (b - a) * share / pieces for a, b in zip(start, end)) for share in (piece, piece + 1)]
                pen.line(ends, fill=colour, width=3)
        for x, y in ordered:
            if form == "FLAT":
                pen.ellipse([x - 6, y - 6, x + 6, y + 6], fill=colour)
            else:
                pen.rectangle([x - 6, y - 6, x + 6, y + 6], outline=colour, width=3)
        y = top + 40 + 30 * number
        if form == "FLAT":
            pen.ellipse([width - right + 80, y - 6, width - right + 92, y + 6], fill=colour)
        else:
            pen.rectangle([width - right + 80, y - 6, width - right + 92, y + 6], outline=colour, width=3)
        pen.text((width - right + 104, y), f"{domains} {form.lower()}", fill=colour, font=small, anchor="lm")
    pen.text((width - right + 80, top + 2), "domains", fill="black", font=small)
    image.save(path)
    print(f"drawn: {path}")


def main():
    args = arguments()
    if args.plot_only:
        rows = lines_of(args.output)
        if not rows:
            sys.exit(f"{args.output}: no lines")
        rows = [row for row in rows if row["study"] == rows[-1]["study"]]
    else:
        os.makedirs(args.work, exist_ok=True)
        weights = dense_weights(args)
        study = study_id(args, weights)
        rows = [row for row in lines_of(args.output) if row["study"] == study]
        done = {(row["form"], row["domains"], row["budget"]) for row in rows}
        for case in cases(args):
            if (case["form"], case["domains"], case["budget"]) in done:
                continue
            row = run_case(args, case, study, weights)
            with open(args.output, "a", encoding="utf-8") as output:
                output.write(json.dumps(row) + "\n")
            rows.append(row)
            print(f"{case['form']} {case['domains']} {case['budget']:g}: {row['loss']:.5f}", file=sys.stderr)
    table(rows)
    draw(rows, args.plot)


if __name__ == "__main__":
    main()
