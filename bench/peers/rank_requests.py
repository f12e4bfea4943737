"""The rank's end of bench/rank_team.py, for PyTorch programs: JSON lines through two named pipes."""
import argparse
import datetime
import json
import os

import torch
import torch.distributed as dist


def start():
    """Joins the gloo group and returns the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipes", required=True, help="folder of the ranks' named pipes")
    for name in ("rank", "ranks", "port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--address", required=True, help="of rank 0")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://{arguments.address}:{arguments.port}", rank=arguments.rank,
                            world_size=arguments.ranks, timeout=datetime.timedelta(minutes=15))
    return arguments


def serve(arguments, answer):
    """Answers until the driver closes the pipe."""
    place = os.path.join(arguments.pipes, "{}." + str(arguments.rank))
    with open(place.format("request"), encoding="utf-8") as requests, \
            open(place.format("answer"), "w", encoding="utf-8") as answers:
        for line in requests:
            request = json.loads(line)
            try:
                reply = {"pid": os.getpid(), "torch": torch.__version__} if request["op"] == "hello" else answer(request)
            except Exception as error:  # whatever PyTorch cannot do is a result
                reply = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
            print(json.dumps(reply), file=answers, flush=True)
    dist.destroy_process_group()
