"""One run: an undisturbed answer to each question, then fire, then the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.clients import Clients, ask_each
from tests.chaos.faults import Fault, Suffered
from tests.chaos.leftovers import leftovers
from tests.chaos.memory import Growth, MemoryWatch
from tests.chaos.mesh import Mesh, running
from tests.chaos.profiles import Profile
from tests.chaos.questions import Question
from tests.chaos.resumes import Resumes
from tests.chaos.schedule import schedule
from tests.chaos.transcript import Transcript
from tests.chaos.verdict import Verdict, judge, killed_gateways, transcript_of, upstream_hosts


@dataclass(frozen=True)
class Run:
    """What a run brought to light."""

    profile: Profile
    seed: int
    why_not_cut: str
    """Why no network was cut; "" where they were."""
    duration_s: float
    faults: Sequence[Fault]
    suffered: Sequence[Suffered]
    verdict: Verdict
    resumes: Resumes
    growths: Sequence[Growth]


async def run(
    profile: Profile,
    seed: int,
    folder: Path,
    *,
    wants_cuts: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Run:
    """Runs a profile. Everything that a process writes goes to `folder`.

    Raises:
        AssertionError: the undisturbed mesh does not answer, or a process does not come back.
    """
    tell(f"seed {seed}: starting the mesh, with its logs in {folder}")
    async with running(profile.layout, folder, wants_cuts=wants_cuts) as mesh:
        if not mesh.can_cut:
            tell(f"no network is cut: {mesh.why_not_cut}")
            profile = profile.without_cuts()
        asked = [*profile.scripted_questions(), *profile.demo_questions()]
        undisturbed = await _undisturbed(mesh, asked, profile)
        tell(f"{len(undisturbed)} undisturbed answers; now the fire")
        faults = schedule(seed, profile.layout.parts(), profile.fire)
        memory = MemoryWatch(mesh.processes, mesh.envoy_process_id)
        resumes = Resumes()
        clients = _clients(mesh, profile, seed)
        began_s = time.monotonic()
        watching = asyncio.create_task(memory.run())
        counting = asyncio.create_task(resumes.run(mesh))
        try:
            async with asyncio.TaskGroup() as tasks:
                for each in clients:
                    tasks.create_task(each.run(spread_s=2.0))
                tasks.create_task(_burn(mesh, faults, tell))
                await asyncio.sleep(profile.duration_s)
                for each in clients:
                    each.stop()
        finally:
            watching.cancel()
            counting.cancel()
        duration_s = time.monotonic() - began_s
        await asyncio.to_thread(resumes.read, mesh)
        complaints = [*mesh.complaints, *await leftovers(mesh)]
    # Envoy writes its access log when it ends, at the latest.
    hosts = upstream_hosts(mesh.access_log.read_text())
    killed = killed_gateways(mesh.suffered)
    judged = [
        judge(exchange, undisturbed, killed, hosts)
        for each in clients
        for exchange in each.exchanges
    ]
    return Run(
        profile=profile,
        seed=seed,
        why_not_cut=mesh.why_not_cut,
        duration_s=duration_s,
        faults=faults,
        suffered=mesh.suffered,
        verdict=Verdict(judged, complaints),
        resumes=resumes,
        growths=memory.growths(),
    )


async def _undisturbed(
    mesh: Mesh, asked: Sequence[Question], profile: Profile
) -> dict[str, Transcript]:
    """What the mesh answers when nothing happens to it, asked twice: it must be the same."""
    answers: dict[str, Transcript] = {}
    for exchange in await ask_each(mesh.port, [*asked, *asked], profile.stream_limit_s):
        transcript = transcript_of(exchange)
        known = answers.setdefault(exchange.question.name, transcript)
        differences = known.differences(transcript)
        assert not differences, f"{exchange.question.name} has no one answer: {differences}"
    return answers


def _clients(mesh: Mesh, profile: Profile, seed: int) -> list[Clients]:
    groups = (
        (profile.clients, profile.scripted_questions()),
        (profile.demo_clients, profile.demo_questions()),
    )
    return [
        Clients(mesh.port, asked, count=count, seed=seed, limit_s=profile.stream_limit_s)
        for count, asked in groups
        if count
    ]


async def _burn(mesh: Mesh, faults: Sequence[Fault], tell: Callable[[str], None]) -> None:
    """Has every fault happen at its time, whether or not those before it are over."""
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for fault in faults:
            await asyncio.sleep(max(0.0, began_s + fault.at_s - time.monotonic()))
            tell(str(fault))
            tasks.create_task(mesh.suffer(fault))
