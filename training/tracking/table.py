"""A reproduced table as MLflow runs: one for the table, one below it for each row."""

from typing import Any

from training.reproduction.table import Row, Table
from training.tracking.client import LONGEST_PARAM, ended, experiment_id, mlflow_client

__all__ = ["track_table"]


def track_table(uri: str, table: Table) -> str:
    """Write a reproduced table as one run, with a run below it for each row; returns the MLflow id of the first.

    A row's metrics have the seed as their step, and their means beside them; params are what each seed chose. It is
    written at once, without a spool: the table is on the screen whatever MLflow says.
    """
    client = mlflow_client(uri)
    experiment = experiment_id(client, uri)
    shared = {"data_digest": table.rows[0].data_digest, "commit": table.rows[0].commit, "table": table.table}
    made = client.create_run(experiment, run_name=f"reproduce-{table.table}", tags=shared)
    with ended(client, str(made.info.run_id)) as parent:
        client.log_dict(parent, table.model_dump(mode="json"), "table.json")
        for row in table.rows:
            below = client.create_run(experiment, run_name=row.name, tags={**shared, "mlflow.parentRunId": parent})
            with ended(client, str(below.info.run_id)) as child:
                _track_row(client, child, row)
    return parent


def _track_row(client: Any, child: str, row: Row) -> None:
    for seed, chosen in enumerate(row.chosen):
        client.log_param(child, f"chosen.{seed}", chosen[:LONGEST_PARAM])
    for name, figure in row.metrics.items():
        client.log_metric(child, f"{name}_mean", figure.mean)
        for seed, value in enumerate(figure.seeds):
            client.log_metric(child, name, value, step=seed)
