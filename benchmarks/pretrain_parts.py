"""Where the time of a pre-training step goes: the tables, forward, backward, the optimisers; host and device.

Run: python -m benchmarks.pretrain_parts [--device cuda] [--cudnn] [--tokens 250000] [--out FILE]

Batches have the shapes of a training. A part's time ends when the device is done, its `_host` time when the
last kernel was asked for; on a CPU they are the same. `--cudnn` also allows cuDNN's attention kernels, which
`tttab.pretrain.forward` leaves out. Milliseconds; means over the steps after the first.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend

from benchmarks.gpu import machine
from tttab.pretrain import forward
from tttab.pretrain.checkpoint import new_network
from tttab.pretrain.draw import Draw
from tttab.pretrain.loss import loss_for, mean_loss
from tttab.pretrain.optimise import Optimisers
from tttab.pretrain.prior import batch, size_at
from tttab.pretrain.settings import recipe
from tttab.training.precision import fitting_precision


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=250_000, help="cells of a batch, about")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cudnn", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(words)
    if args.cudnn:
        forward.KERNELS.insert(0, SDPBackend.CUDNN_ATTENTION)
    steps = [line for number, line in enumerate(measured(args)) if number]
    means = {part: round(sum(step[part] for step in steps) / len(steps), 1) for part in steps[0]}
    means["cells_per_second"] = round(1000 * means["cells"] / sum(means[part] for part in PARTS))
    found = {"machine": machine(args.device), "preset": args.preset, "cudnn": args.cudnn, "means": means}
    print(json.dumps(found))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found | {"steps": steps}, indent=1) + "\n")


PARTS = ("tables", "forward", "backward", "optimisers")


def measured(args: argparse.Namespace):
    """Yield the milliseconds of each part of a step, and of the host's share of it."""
    settings = recipe(args.preset, "classification")
    settings = replace(settings, shapes=replace(settings.shapes, tokens=args.tokens))
    device = torch.device(args.device)
    dtype = torch.bfloat16 if fitting_precision("auto", device.type) == "bf16" else torch.float32
    network = new_network(settings, 0).to(device).train()
    optimisers, loss = Optimisers(network, settings.optimiser), loss_for(settings, device)
    for number in range(args.steps + 1):
        draw = Draw(0, "parts", number, device=device)
        clock = Clock(device)
        tables = batch(draw, size_at(draw, settings.shapes, 1.0), settings, None)
        positions = forward.draw_positions(draw, tables, settings.architecture.emsize)
        clock.stop("tables")
        value = mean_loss(loss(forward.logits(network, tables, positions, dtype), tables), tables)
        clock.stop("forward")
        optimisers.clear()
        value.backward()
        clock.stop("backward")
        optimisers.step(1e-6)
        clock.stop("optimisers")
        yield {"cells": tables.tokens, **clock.milliseconds}


class Clock:
    """The time of each part, on the host and until the device is done."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.milliseconds = device, {}
        self._started = self._now()

    def stop(self, part: str) -> None:
        host = time.perf_counter()
        done = self._now()
        self.milliseconds[part] = 1000 * (done - self._started)
        self.milliseconds[f"{part}_host"] = 1000 * (host - self._started)
        self._started = done

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


if __name__ == "__main__":
    main()
