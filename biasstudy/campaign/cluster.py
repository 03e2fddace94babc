"""The engine of a Dask cluster: one that runs, by its address, or one that is started through
Slurm. Extra [cluster].

Dask only carries tasks to machines and says who is there: each of its threads hands its task to a
child process (see `engine`), no more tasks are sent than there are threads, and the store, a folder
that all machines share, is the truth. So nothing is lost with a scheduler, and what Dask gets wrong
about long tasks (stealing, time-outs, memory limits) is off.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from .engine import perform_here

SETTINGS = {  # of a scheduler that is started here; read when it starts
    "distributed.scheduler.allowed-failures": 5,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": "1h",
    "distributed.worker.memory.terminate": False,
}
SLURM = {
    "cores": 1,
    "processes": 1,
    "memory": "32GB",
    "walltime": "12:00:00",
    "worker_extra_args": ["--no-dashboard"],
}
LOOK_EVERY = 5.0  # seconds between looks at how many workers there are


class Cluster:
    """An engine: tasks go to the workers of a scheduler, as many at a time as they have threads.

    address   of the scheduler, tcp://... or tls://...
    tls       files with the certificate of the authority, own certificate, own key
    raises    ConnectionError, ImportError, ValueError   with one sentence
    """

    def __init__(self, address: str, tls: Sequence[Path] = ()) -> None:
        distributed = _distributed()
        if address.startswith("tls://") != bool(tls):
            raise ValueError(
                f"an address tls://... needs --tls CA CERT KEY, and no other does; got {address!r}"
            )
        for file in tls:
            if not file.is_file():
                raise ValueError(f"--tls names {file}, and there is no such file")
        files = dict(
            zip(("tls_ca_file", "tls_client_cert", "tls_client_key"), map(str, tls), strict=False)
        )
        security = distributed.Security(**files, require_encryption=True) if tls else None
        try:
            self._connect(
                distributed.Client(address, security=security, timeout=20, set_as_default=False)
            )
        except (OSError, TimeoutError) as error:
            raise ConnectionError(
                f"no Dask scheduler answers at {address}; start one with: dask scheduler"
            ) from error

    def _connect(self, client: Any, cluster: Any = None, most: int = 0) -> None:
        self.client, self.cluster, self._most = client, cluster, most
        self.dashboard = client.dashboard_link
        self._slots, self._looked = 0, float("-inf")

    @property
    def slots(self) -> int:
        """Threads of all workers; of jobs that Slurm starts when there are tasks, those of all that
        may be started."""
        if time.monotonic() - self._looked > LOOK_EVERY:
            self._slots = self._most or sum(self.client.nthreads().values())
            self._looked = time.monotonic()
        return self._slots

    def submit(self, task: dict[str, Any]) -> "Future[dict[str, Any]]":
        ended: Future[dict[str, Any]] = Future()
        sent = self.client.submit(perform_here, task, pure=False)

        def tell(sent: Any) -> None:
            if sent.status == "finished":
                ended.set_result(sent.result())
            elif sent.status == "error":
                error = sent.exception()
                died = type(error).__name__ == "KilledWorker"
                ended.set_result({"state": "died" if died else "failed", "lines": [str(error)]})
            else:
                ended.set_exception(
                    ConnectionError("lost the Dask scheduler; run the same command again to go on")
                )
            sent.release()

        sent.add_done_callback(tell)
        return ended

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()


class Slurm(Cluster):
    """An engine whose workers are Slurm jobs, started when there are tasks and ended when there are
    none.

    options   those of dask_jobqueue.SLURMCluster; `jobs`: how many at most; `interface`: network on
              which jobs reach this machine (ib0, or lo for this machine alone); `tls: true`:
              encrypted, certificates made for the occasion
    raises    ImportError, ValueError   with one sentence
    """

    def __init__(self, options: dict[str, Any]) -> None:
        distributed, cluster = _distributed(), slurm_cluster(options)
        cluster.adapt(minimum_jobs=0, maximum_jobs=options["jobs"])
        most = options["jobs"] * options.get("cores", SLURM["cores"])
        self._connect(distributed.Client(cluster, set_as_default=False), cluster, most)


def slurm_cluster(options: dict[str, Any]) -> Any:
    """A dask_jobqueue.SLURMCluster without jobs yet, from the options of a file."""
    _distributed()
    from dask_jobqueue import SLURMCluster

    if type(options.get("jobs")) is not int or options["jobs"] < 1:
        raise ValueError(
            f"a Slurm file must say jobs: how many at most; got {options.get('jobs')!r}"
        )
    if not options.get("interface"):
        raise ValueError(
            "a Slurm file must say interface: the network on which jobs reach this machine, such "
            "as ib0 or eth0"
        )
    given = {name: value for name, value in options.items() if name not in ("jobs", "tls")}
    given["scheduler_options"] = {
        "dashboard_address": "127.0.0.1:0",
        **given.get("scheduler_options", {}),
    }
    if options.get("tls"):
        given |= {"security": True, "protocol": "tls://"}
    try:
        return SLURMCluster(**{**SLURM, **given})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"dask_jobqueue does not take the Slurm file: {str(error).splitlines()[0]}"
        ) from error


def _distributed() -> Any:
    try:
        import dask
        import dask_jobqueue  # noqa: F401
        import distributed
    except ImportError as error:
        raise ImportError("a cluster needs more packages: pip install -e .[cluster]") from error
    dask.config.set(SETTINGS)
    return distributed
