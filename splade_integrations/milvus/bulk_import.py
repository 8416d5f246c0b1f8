"""Ask a Milvus server to import files, with the REST requests of pymilvus.

The requests were checked against a local HTTP server that records them. They have not been tried on a Milvus server.
milvus-lite cannot import files.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from splade_integrations.dependencies import require_extra

with require_extra("bulk", module=__name__):
    from pymilvus.bulk_writer import bulk_import, get_import_progress, list_import_jobs

__all__ = ["FILES_PER_JOB", "ImportJob", "Importer"]

# The largest number of files that Milvus accepts in one job. Source: dataCoord.import.maxImportFileNumPerReq in
# Milvus's configuration, milvus-io/milvus, configs/milvus.yaml.
FILES_PER_JOB = 1024


@dataclass(frozen=True)
class ImportJob:
    """The state of an import job.

    Args:
        id: The job's id.
        state: Pending, Importing, Completed or Failed.
        progress: The progress in percent.
        reason: Why the job has failed, or "".
        rows: The number of imported rows.
    """

    id: str
    state: str
    progress: float = 0.0
    reason: str = ""
    rows: int = 0


class Importer:
    """Imports files into an existing collection. The files must already be in the server's bucket.

    An import does not replace a stored row that has the same key as an imported row. So import into an empty
    collection.

    Args:
        uri: The server's address, such as http://localhost:19530.
        collection_name: The collection.
        token: The server's token: user:password, or an API key.
        db_name: The server's database.
    """

    def __init__(self, uri: str, collection_name: str, *, token: str = "", db_name: str = "") -> None:
        self._where = {"url": uri.rstrip("/"), "api_key": token}
        self._collection_name, self._db_name = collection_name, db_name

    def start(self, files: Iterable[str], *, options: Mapping[str, str] | None = None) -> list[str]:
        """Start one job for every 1 024 files, and return the ids of the jobs.

        Args:
            files: The paths of the files in the bucket, such as "wiki/part-1.parquet".
            options: Options of the import, such as {"timeout": "300s"}.
        Raises:
            ValueError: There are no files.
            MilvusException: The server refuses the import.
        """
        paths = list(files)
        if not paths:
            raise ValueError(
                "files must name at least one file in the server's bucket, got none. Write and upload files first."
            )
        ids = []
        for start in range(0, len(paths), FILES_PER_JOB):
            answer = bulk_import(
                **self._where,
                collection_name=self._collection_name,
                db_name=self._db_name,
                files=[[path] for path in paths[start : start + FILES_PER_JOB]],
                options=dict(options or {}),
            )
            ids.append(str(answer.json()["data"]["jobId"]))
        return ids

    def job(self, job_id: str) -> ImportJob:
        """Return the state of a job."""
        data = get_import_progress(**self._where, job_id=job_id).json()["data"]
        return _job({"jobId": job_id, **data})

    def jobs(self) -> list[ImportJob]:
        """Return the latest jobs for this collection, at most ten."""
        answer = list_import_jobs(**self._where, collection_name=self._collection_name, db_name=self._db_name)
        return [_job(record) for record in answer.json()["data"]["records"]]

    def wait(
        self,
        job_ids: Iterable[str],
        *,
        seconds: float = 24 * 3600.0,
        every: float = 5.0,
        report: Callable[[ImportJob], object] = lambda _: None,
    ) -> list[ImportJob]:
        """Wait until all jobs have ended, and return their final states.

        Args:
            job_ids: The jobs.
            seconds: The longest time to wait for all jobs together, in seconds.
            every: The pause before the server is asked again, in seconds.
            report: Called with each state that the server returns.
        Raises:
            RuntimeError: A job has failed. The message contains the server's reason.
            TimeoutError: The jobs have not ended after `seconds`.
        """
        end, ended = time.monotonic() + seconds, []
        for job_id in job_ids:
            while (job := self.job(job_id)).state not in ("Completed", "Failed"):
                report(job)
                if time.monotonic() + every > end:
                    raise TimeoutError(
                        f"the import jobs must end within {seconds:g} s, got job {job_id} at {job.progress:g} %. The "
                        "server continues the job: call wait again."
                    )
                time.sleep(every)
            report(job)
            if job.state == "Failed":
                raise RuntimeError(
                    f"the import job {job_id} must complete, got a failure: {job.reason}. Remove the cause, and "
                    "import the files of this job again."
                )
            ended.append(job)
        return ended


def _job(data: Mapping[str, Any]) -> ImportJob:
    return ImportJob(
        id=str(data["jobId"]),
        state=str(data.get("state", "Pending")),
        progress=float(data.get("progress") or 0),
        reason=str(data.get("reason") or ""),
        rows=int(data.get("importedRows") or 0),
    )
