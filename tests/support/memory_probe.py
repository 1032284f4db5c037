"""A process of its own that runs one planned training step and says what it held: plan, before, peak.

Run: python -m tests.support.memory_probe '{"rows": 200, "columns": 20, "budget": 4294967296, "members": 1}'
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict


def main(request):
    import numpy as np
    import pandas as pd
    import torch

    from tests.support.small_models import small_model
    from tttab.rules import get_rule
    from tttab.system.resources import peak_resident_bytes, resident_bytes
    from tttab.training.config import Schedule
    from tttab.training.loop import Adaptation

    torch.set_num_threads(1)
    n, columns, queries = request["rows"], request["columns"], request["queries"]
    session = small_model(members=request["members"], **request["sizes"])
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(n + queries, columns)), columns=[f"c{i}" for i in range(columns)])
    y = rng.integers(0, 3, n + queries)
    context = session.context(x[:n], y[:n], 3)
    schedule = Schedule(steps=1, lr=1e-4, precision="fp32", batch=request["batch"])
    run = Adaptation(session, get_rule("full"), context, (x[n:], y[n:]), schedule, budget=request["budget"])
    before = resident_bytes()
    list(run)
    plan = run.result.plan
    answer = asdict(plan.execution)
    print(json.dumps(answer | {"needed": plan.needed, "before": before, "peak": peak_resident_bytes()}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
