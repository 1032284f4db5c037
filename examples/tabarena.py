"""The adapted model in TabArena's own runner beside AutoGluon's random forest, on a split of a bundled table.

Run: pip install 'tttab[autogluon]' tabarena && python examples/tabarena.py

For TabArena's tables take their tasks from its `TaskMetadataCollection` in the place of this one.
"""

from pathlib import Path

import pandas as pd
from autogluon.tabular.models import RFModel
from sklearn.model_selection import StratifiedKFold
from tabarena.benchmark.experiment import AGModelExperiment, ExperimentBatchRunner
from tabarena.benchmark.task import UserTask
from tabarena.benchmark.task.metadata import TaskMetadataCollection

import tttab
from tttab.integrations.autogluon import TTTModel

out = Path("tabarena-out")
table = tttab.load_table("phoneme")
frame = table.x.assign(target=pd.Categorical.from_codes(table.y, list(table.classes)))
folds = StratifiedKFold(3, shuffle=True, random_state=0).split(frame, table.y)
splits = {0: {i: (train.tolist(), test.tolist()) for i, (train, test) in enumerate(folds)}}
task = UserTask(task_name=table.name, task_cache_path=out / "tasks")
task.save_local_openml_task(
    task.create_local_openml_task(
        dataset=frame, target_feature="target", problem_type="classification", splits=splits
    )
)
about = {
    "tid": task.task_id,
    "name": task.tabarena_task_name,
    "dataset": task.tabarena_task_name,
    "problem_type": "binary",
    "n_folds": 1,
    "n_repeats": 1,
    "n_features": table.x.shape[1],
    "n_classes": 2,
    "NumberOfInstances": len(table),
    "n_samples_train_per_fold": len(splits[0][0][0]),
    "n_samples_test_per_fold": len(splits[0][0][1]),
    "target_feature": "target",
}
tasks = TaskMetadataCollection.from_legacy_df(pd.DataFrame([about]))
methods = [
    AGModelExperiment("TTT", TTTModel, {"n_context": 200, "steps": 20}, time_limit=600),
    AGModelExperiment("RandomForest", RFModel, {}, time_limit=600),
]
runner = ExperimentBatchRunner(str(out), tasks, user_tasks=[task], debug_mode=True)
for found in runner.run_all(methods):
    print(found["framework"], found["metric"], round(found["metric_error"], 4))
