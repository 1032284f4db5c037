"""Pre-train the full-size transformers of both papers, run test-time training on them, write rows.

    python3 -m benchmarks.theory_transformer --out DIR --device cuda --minutes 6

Stages, in order: GPT-2 for paper A and its warm/cold curve; GPT-2 for paper B (d = 4) and error against
context length; GPT-2 over pair tokens for paper B at d = 4, 8, 16, which reads contexts of any length;
pair-token models for paper A and for paper B at d = 4, 8, 16; test-time training vectorised over tasks
against a loop. Rows go to DIR/rows.jsonl as they come; checkpoints (float16) go
to DIR. A checkpoint that is already there is used, not made again. Needs torch, transformers,
safetensors and numpy. `--tiny` runs everything in miniature, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import traceback
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.run_speed import synchronize
from tttab.theory.transformer.adapt import LabelledRows, TaskTraining, adapt_looped, adapt_prompt
from tttab.theory.transformer.paper_a import WarmColdSettings, warm_cold_rows
from tttab.theory.transformer.paper_b import ContextSettings, context_rows
from tttab.theory.transformer.pretrain import save_checkpoint
from tttab.theory.transformer.store import Pretrained, PretrainStep, open_file, pretrain_into_cache, recipe
from tttab.theory.transformer.tasks import sample_prompts

SHARES = {  # of the whole time, for pre-training; the rest is evaluation
    ("A", "gpt2", 60): 0.16,
    ("B", "gpt2", 4): 0.14,
    ("B", "gpt2-pairs", 4): 0.09,
    ("B", "gpt2-pairs", 8): 0.06,
    ("B", "gpt2-pairs", 16): 0.06,
    ("A", "pair", 60): 0.05,
    ("B", "pair", 4): 0.05,
    ("B", "pair", 8): 0.05,
    ("B", "pair", 16): 0.05,
}


class Run:
    """Where rows go, and how much time is left."""

    def __init__(self, options):
        self.options = options
        self.started, self.failed = time.monotonic(), False
        options.out.mkdir(parents=True, exist_ok=True)
        self.rows = options.out / "rows.jsonl"
        self.machine = device_name(options.device)

    def write(self, row):
        row = row | {"machine": self.machine, "torch": torch.__version__, "tf32": tf32(self.options.device)}
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def say(self, text):
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def left(self):
        return 60 * self.options.minutes - (time.monotonic() - self.started)


def device_name(device):
    return torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or "cpu"


def tf32(device):
    return device.startswith("cuda") and torch.get_float32_matmul_precision() != "highest"


def main():
    options = parse()
    torch.set_float32_matmul_precision(options.matmul)
    run = Run(options)
    stages = [] if options.speed_only else [(*which, share) for which, share in SHARES.items()]
    for paper, kind, d, share in stages:
        attempt(run, f"paper {paper} {kind} d={d}", lambda: stage(run, paper, kind, d, share))  # noqa: B023
    attempt(run, "vectorised against looped", lambda: speed(run))
    run.say(f"done: {run.rows}")
    return int(run.failed)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument(
        "--precision", default="", help="of pre-training: float32 or bfloat16 (default on CUDA)"
    )
    parser.add_argument("--matmul", default="high", choices=["highest", "high"], help="high allows TF32")
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--speed-only", action="store_true", help="only vectorised against looped")
    options = parser.parse_args()
    options.precision = options.precision or ("bfloat16" if options.device.startswith("cuda") else "float32")
    return options


def attempt(run, name, work):
    """Run one stage; a failure is printed and written, and the next stage goes on."""
    run.say(name)
    try:
        work()
    except Exception as error:
        traceback.print_exc()
        run.failed = True
        run.write({"experiment": "failure", "stage": name, "error": f"{type(error).__name__}: {error}"})


def stage(run, paper, kind, d, share):
    pretrained = pretrain_stage(run, paper, kind, d, share)
    if run.left() < 0:
        run.say("no time left for test-time training")
        return
    for row in evaluation(run, pretrained, paper, kind, d):
        run.write(row)
        if run.left() < -30:
            run.say("time is up")
            return


def pretrain_stage(run, paper, kind, d, share):
    options = run.options
    path = options.out / f"paper-{paper.lower()}-{kind}-d{d}.safetensors"
    if path.exists():
        return open_file(path, options.device)
    settings = replace(recipe(paper, kind, "full", d), seed=options.seed)
    if options.tiny:
        settings = replace(settings, batch=4, model=replace(settings.model, width=32))
    began, last, model = time.monotonic(), None, None
    minutes = options.minutes * share
    for event in pretrain_into_cache(
        settings, options.out / "unfinished", options.device, options.precision, minutes
    ):
        if isinstance(event, PretrainStep):
            last = event
            if event.step % 500 == 0:
                run.say(f"  step {event.step}/{event.steps} loss {event.loss:.4f}")
        else:
            model = event
    save_checkpoint(path, model.model, model.settings, half=True)
    seconds = time.monotonic() - began
    row = {"experiment": "pretrain", "paper": paper, "model": kind, "d": d, "file": path.name}
    row |= {"parameters": sum(p.numel() for p in model.model.parameters()), "seconds": seconds}
    row |= {"tokens": model.settings.tokens, "tokens_per_second": model.settings.tokens / seconds}
    row |= {"steps": model.settings.steps, "last_batch_loss": last.loss if last else None}
    run.write(row | {"precision": options.precision, "seed": options.seed})
    run.say(f"  {model.settings.tokens:.2e} tokens, {model.settings.tokens / seconds:.2e} tokens/s")
    return model


def evaluation(run, pretrained, paper, kind, d):
    options, tiny = run.options, run.options.tiny
    common = {"tasks": 2 if tiny else options.tasks, "seed": options.seed, "device": options.device}
    if paper == "A":
        how = TaskTraining(steps=4 if tiny else 150)
        k = (64, 128) if tiny else (64, 96, 128, 192, 256, 384, 512)
        return warm_cold_rows(pretrained, WarmColdSettings(k=k, how=how, search=True, **common))
    how = TaskTraining(steps=4 if tiny else 100)
    main_model = d == 4 and kind != "pair"
    lengths = (
        (16, 32, 64, 128) if kind == "gpt2" else (16, 64, 256, 1024)
    )  # as many as GPT-2 has positions for
    shifts = ("none", "c=1", "he2") if main_model else ("none", "c=1")
    rules = ("full", "lora") if main_model or d == 4 else ("full",)
    lengths = lengths[:2] if tiny else lengths
    return context_rows(
        pretrained, ContextSettings(lengths, shifts, rules, how=how, search=main_model, whole=True, **common)
    )


def speed(run):
    """Time 10 steps of test-time training for 16 tasks, vectorised and looped, for both models."""
    device, tiny = run.options.device, run.options.tiny
    for kind in ("pair", "gpt2"):
        for size in ("small", "full"):
            settings = recipe("B", kind, size)
            pretrained = fresh(settings, device)
            generator = torch.Generator(device=device).manual_seed(run.options.seed)
            tasks = 2 if tiny else 16
            drawn = sample_prompts(settings.law, tasks, 64, generator)
            prompt, how = LabelledRows(drawn.x, drawn.y), TaskTraining(steps=2 if tiny else 10, check=10)
            vector = timed(lambda: adapt_prompt(pretrained.model, prompt, how), device)  # noqa: B023
            loop = timed(lambda: adapt_looped(pretrained.model, prompt, how), device)  # noqa: B023
            row = {"experiment": "ttt-speed", "model": kind, "size": size, "tasks": tasks, "n": 64}
            row |= {"width": settings.model.width, "steps": how.steps, "threads": torch.get_num_threads()}
            row |= {"vectorised_seconds": vector, "loop_seconds": loop, "ratio": loop / vector}
            run.write(row | {"device": device})
            run.say(f"  {kind} {size}: vectorised {vector:.2f} s, loop {loop:.2f} s, {loop / vector:.1f}x")


def fresh(settings, device):
    from tttab.theory.transformer.model import build_model

    return Pretrained(build_model(settings.model, 0).to(device), settings, "untrained")


def timed(work, device):
    """Return the second of two runs' seconds, on a CPU the process's own: the first one warms up."""
    for _ in range(2):
        synchronize(device)
        clock = time.monotonic if device.startswith("cuda") else time.process_time
        began = clock()
        work()
        synchronize(device)
    return clock() - began


if __name__ == "__main__":
    raise SystemExit(main())
