"""Brings up a whole mesh on this machine, part by part, and says where everything is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from services.cli.up import envoy, plan, probes
from services.cli.up.notice import MeshNotice, ProcessNotice
from services.cli.up.preflight import claim_port
from services.cli.up.progress import StartProgress
from services.cli.up.supervisor import Child, Supervisor
from services.mesh.errors import StartError
from services.mesh.process import ReadyNotice

# Workers attach and gateways learn of them within a heartbeat: longer means that something is
# broken which no process has noticed.
END_TO_END_LIMIT_S = 30.0


class LocalMesh:
    """A mesh of child processes, as `options` describe it."""

    def __init__(
        self, options: plan.MeshOptions, supervisor: Supervisor, progress: StartProgress
    ) -> None:
        self._options = options
        self._supervisor = supervisor
        self._progress = progress
        self._processes: list[ProcessNotice] = []

    async def start(self) -> MeshNotice:
        """Returns once every worker is attached and its model is listed through Envoy.

        Raises:
            ChildError: a part is not ready in time. (One that ends fails the supervisor's tasks.)
            StartError: all parts are ready, but do not find each other.
        """
        options = self._options
        controllers = [
            (await self._service_ready(controller)).address
            for controller in await self._start(plan.controllers(options))
        ]

        gateway, *workers = await self._start(
            [plan.gateway(options, controllers), *plan.workers(options, controllers)]
        )
        async with asyncio.TaskGroup() as tasks:
            for worker in workers:
                tasks.create_task(self._service_ready(worker))
            # Workers take longest: Envoy comes up meanwhile.
            await self._start_envoy((await self._service_ready(gateway)).address)

        models, capabilities = await self._end_to_end(controllers)
        return MeshNotice(
            process_id=os.getpid(),
            base_url=f"http://{self._options.client_address}/v1",
            grpc_address=self._options.client_address,
            models=models,
            capabilities=capabilities,
            run_folder=str(options.run_folder),
            asks_for_keys=options.asks_for_keys,
            processes=tuple(sorted(self._processes, key=lambda process: process.name)),
        )

    async def _start(self, plans: Sequence[plan.ProcessPlan]) -> list[Child]:
        for each in plans:
            what = f"loading {each.loads}" if each.loads else "starting"
            self._progress.awaiting(each.name, what, each.log_file)
        return await self._supervisor.start(plans)

    async def _service_ready(self, child: Child) -> ReadyNotice:
        ready = await self._supervisor.until_ready(child, probes.ready_notice)
        self._add(child, ready.address, ready.metrics_address, "/metrics")
        return ready

    async def _start_envoy(self, gateway_address: str) -> None:
        options = self._options
        gateway_host, _, gateway_port = gateway_address.rpartition(":")
        settings = envoy.EnvoySettings(
            listen_host=options.host,
            listen_port=options.port,
            gateway_host=gateway_host,
            gateway_port=int(gateway_port),
            admin_host=plan.LOOPBACK,
            admin_port=claim_port(plan.LOOPBACK, 0),
            metrics_host=plan.LOOPBACK,
            metrics_port=claim_port(plan.LOOPBACK, 0),
        )
        configuration_file = options.run_folder / "envoy.yaml"
        configuration_file.write_text(envoy.configuration(settings))
        command = envoy.command(settings, configuration_file)
        (child,) = await self._start([plan.envoy(options, command)])
        admin_address = f"{plan.LOOPBACK}:{settings.admin_port}"
        await self._supervisor.until_ready(child, lambda _: probes.envoy_live(admin_address))
        self._add(child, self._options.client_address, admin_address, "/stats/prometheus")

    async def _end_to_end(
        self, controllers: Sequence[str]
    ) -> tuple[tuple[str, ...], dict[str, list[str]]]:
        """The models that clients see once all workers are attached, and what each can do."""
        self._progress.awaiting("mesh", "asking for the models through Envoy")
        base_url = f"http://{self._options.client_address}/v1"
        try:
            async with asyncio.timeout(END_TO_END_LIMIT_S):
                workers = self._options.workers * len(self._options.models)
                capabilities: dict[str, list[str]] = {}
                for controller in controllers:
                    capabilities |= await probes.until_attached(controller, workers)
                models = await probes.until_listed(base_url, self._options.own_key, capabilities)
        except TimeoutError:
            raise StartError(
                f"all processes run, but {base_url}/models lists no model of all workers after "
                f"{END_TO_END_LIMIT_S:.0f} s: see the logs in {self._options.run_folder}"
            ) from None
        self._progress.ready("mesh", f"serves {', '.join(models)}")
        return models, capabilities

    def _add(self, child: Child, address: str, metrics_address: str, metrics_path: str) -> None:
        self._progress.ready(child.plan.name, address)
        self._processes.append(
            ProcessNotice(
                name=child.plan.name,
                job=child.plan.job,
                process_id=child.process.pid,
                address=address,
                metrics_address=metrics_address,
                metrics_path=metrics_path,
                log_file=str(child.plan.log_file),
            )
        )
