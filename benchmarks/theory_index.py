"""Speed of the single-index pipeline: tasks at once against a loop over tasks, with measured ceilings.

    python3 -m benchmarks.theory_index --device cpu --out results/speed/theory_index_cpu.json

The whole pipeline (rows drawn, stages I to III, prediction of 512 rows) at r = 16, d = 32, N = 16,384.
Ceilings are measured in the same run: float32 matrix products, copying, exponentials. Needs torch.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from benchmarks.run_speed import synchronize
from tttab.theory.single_index.algorithm import Pipeline, prompt_parts, subspace, train, weak_direction
from tttab.theory.single_index.attention import population_gamma
from tttab.theory.single_index.stages import Stream, draw_neurons, fit_link, stage_three, stage_two
from tttab.theory.single_index.tasks import IndexLaw, draw_basis, draw_rows, draw_tasks

TEST_ROWS = 512


def main():
    options = parse()
    torch.set_float32_matmul_precision(options.matmul)
    law = IndexLaw(options.d, options.r, (0.0, 0.0, 0.0, 1.0), 0.1, vary=4)
    generator = torch.Generator(device=options.device).manual_seed(options.seed)
    basis = draw_basis(law, generator)
    gamma = population_gamma(law, basis)[0].to(basis)
    batched = timed(lambda: pipeline(law, basis, gamma, options.tasks, options.rows, generator), options)
    looped = timed(
        lambda: [pipeline(law, basis, gamma, 1, options.rows, generator) for _ in range(options.loop_tasks)],
        options,
    )
    rate, loop_rate = options.tasks / batched, options.loop_tasks / looped
    row = {
        "benchmark": "single-index pipeline",
        "settings": {name: value for name, value in vars(options).items() if name != "out"},
        "machine": machine(options.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "tasks_per_second": rate,
        "loop_tasks_per_second": loop_rate,
        "ratio": rate / loop_rate,
        "stages_seconds": stages(law, basis, gamma, options, generator),
        "ceilings": ceilings(options),
    }
    row["work_per_task"] = work(options, Pipeline())
    row["share_of_ceiling"] = shares(row, rate)
    print(json.dumps(row, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tasks", type=int, default=0, help="tasks at once: 256 on CPU, 1024 on CUDA")
    parser.add_argument("--loop-tasks", type=int, default=4)
    parser.add_argument("--rows", type=int, default=16384)
    parser.add_argument("--d", type=int, default=32)
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--matmul", default="highest", choices=["highest", "high"], help="high allows TF32")
    parser.add_argument(
        "--clock",
        default="wall",
        choices=["wall", "cpu"],
        help="cpu: this process's time, for a busy machine",
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.tasks = options.tasks or (256 if options.device == "cpu" else 1024)
    return options


def pipeline(law, basis, gamma, tasks, rows, generator):
    drawn = draw_tasks(law, basis, tasks, generator)
    x, y = draw_rows(drawn, rows, generator)
    test = torch.randn(tasks, TEST_ROWS, law.d, generator=generator, device=generator.device)
    return train(Pipeline(), gamma, x, y, generator).predict(test)


def stages(law, basis, gamma, options, generator):
    """Return the seconds of each part for all tasks at once."""
    how, tasks = Pipeline(), options.tasks
    drawn = draw_tasks(law, basis, tasks, generator)
    x, y = draw_rows(drawn, options.rows, generator)
    first, second, third, fourth = prompt_parts(options.rows)
    seconds = {"rows": timed(lambda: draw_rows(drawn, options.rows, generator), options)}
    one = lambda: weak_direction(how, gamma, x[:, first], y[:, first], generator)  # noqa: E731
    seconds["I"] = timed(one, options)
    u, kept = one(), subspace(gamma)
    link = fit_link(u, x[:, second], y[:, second])
    stream = Stream((x[:, third] @ kept).transpose(0, 1).contiguous(), y[:, third].T.contiguous(), None)
    stream = Stream(stream.x, stream.y, torch.full((len(stream.x),), 1e-3))
    seconds["II"] = timed(lambda: stage_two(u @ kept, stream, link), options)
    neurons = draw_neurons(how.neurons, how.bound, generator)
    seconds["III"] = timed(lambda: stage_three(u, x[:, fourth], y[:, fourth], neurons), options)
    return seconds


def work(options, how):
    """Return what one task costs at least: products of the attention and the ridge, exponentials, bytes."""
    n1, n4 = options.rows // 4, options.rows // 8
    scores = n1 * how.queries
    flops = 2 * scores * (options.r + 1) + 2 * n4 * how.neurons**2
    row_bytes = 4 * options.rows * options.d
    return {"flops": flops, "exponentials": scores, "row_bytes_written_and_read": 2 * row_bytes}


def shares(row, rate):
    work_done, top = row["work_per_task"], row["ceilings"]
    return {
        "flops": rate * work_done["flops"] / top["matmul_flops"],
        "exponentials": rate * work_done["exponentials"] / top["exponentials"],
        "bytes": rate * work_done["row_bytes_written_and_read"] / top["copy_bytes"],
    }


def ceilings(options):
    """Return the best of this machine, per second: float32 product flops, copied bytes, softmax entries."""
    on, size = {"device": options.device}, 2048 if options.device == "cpu" else 8192
    square = torch.randn(size, size, **on)
    block = torch.randn(2**22 if options.device == "cpu" else 2**28, **on)
    scores = torch.randn(128, 4096, **on) if options.device == "cpu" else torch.randn(2**16, 4096, **on)
    return {
        "matmul_flops": 2 * size**3 / timed(lambda: square @ square, options),
        "copy_bytes": 8 * block.numel() / timed(block.clone, options),
        "exponentials": scores.numel() / timed(lambda: scores.softmax(dim=1), options),
    }


def machine(device):
    return torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()


def timed(action, options):
    """Return the least seconds of several runs after one to warm up."""
    best = float("inf")
    for attempt in range(options.repeats + 1):
        synchronize(options.device)
        clock = time.process_time if options.clock == "cpu" else time.perf_counter
        began = clock()
        action()
        synchronize(options.device)
        if attempt:
            best = min(best, clock() - began)
    return best


if __name__ == "__main__":
    main()
