"""The play: a load, one fault after the other in an order that the seed says, and the reckoning after each."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from tests.chaos.faults import FAULTS, FLUSHED_IN_OUTAGE, Fault, Out
from tests.chaos.ledger import CALM, DEADLINE_MS, Breach, Ledger
from tests.chaos.load import Load
from tests.chaos.nodes import ON_A_CLUSTER
from tests.chaos.platform import NOT_ANSWERED
from tests.chaos.reckoning import Reckoning, Rest, quantile
from tests.chaos.stage import Stage, gone, seconds, staged, tell

SETTLED_S: Final = 60.0
SLACK_MS: Final = 150.0
"""What a busy machine may add to the deadline, and for how many answers, before the long run is called failed."""
WITHIN: Final = 0.99
PROPAGATION_MS: Final = 50.0
MEMORY_GROWTH: Final = 1.25
MEMORY_MB: Final = 25.0
DESCRIPTORS: Final = 8


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One fault as it was played: times in seconds; checks while it lasted, latencies in milliseconds."""

    fault: str
    at: float
    held_s: float
    settled_s: float
    checks: int
    errors: int
    degraded: int
    within_deadline: float
    p99_ms: float
    slowest_ms: float
    what_failed: tuple[str, ...]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run has to say."""

    seed: int
    seconds: float
    disk: bool
    scenes: tuple[Scene, ...]
    skipped: tuple[str, ...]
    acknowledged: dict[str, int]
    retried: int
    refused: dict[str, int]
    undecided: dict[str, int]
    calm: Scene
    propagation_ms: dict[str, float]
    first: Rest | None
    last: Rest | None
    metrics: dict[str, float]
    breaches: tuple[Breach, ...]


class Play:
    """One run on one stage. `strict` also judges what depends on how busy the machine is."""

    def __init__(self, stage: Stage, seed: int, *, strict: bool, say: Callable[[str], None]) -> None:
        self._stage, self._seed, self._strict, self._say = stage, seed, strict, say
        self.ledger = Ledger()
        self._dice = random.Random(seed)
        self._load = Load(stage, self.ledger, random.Random(self._dice.random()))
        self._reckoning = Reckoning(stage, self.ledger, self._load)
        self._scenes: list[Scene] = []
        self._rests: list[Rest] = []
        self._propagation: list[float] = []

    async def run(self, faults: Sequence[Fault], lasting_s: float) -> Outcome:
        """Play these in cycles, each in another order, until time is over, the first cycle to its end."""
        playable = [each for each in faults if self._stage.stores.small or "disk" not in each.name]
        skipped = tuple(each.name for each in faults if each not in playable)
        began = seconds()
        await self._load.set_up()
        self._load.start()
        try:
            await self._settled()
            await self._calm(6.0 if self._strict else 1.5)
            for number, fault in self._program(playable):
                if number >= len(playable) and seconds() - began > lasting_s:
                    break
                await self._scene(fault)
                if (number + 1) % len(playable) == 0 or (number + 1 > len(playable) and not self._rests):
                    self._rests.append(await self._reckoning.reckon())
            self._rests.append(await self._reckoning.reckon())
            await self._flushed_in_outage()
        finally:
            await self._load.stop()
        return await self._outcome(seconds() - began, skipped)

    def _program(self, playable: Sequence[Fault]) -> Iterator[tuple[int, Fault]]:
        number = 0
        while True:
            for fault in self._dice.sample(playable, len(playable)):
                yield number, fault
                number += 1

    async def _calm(self, hold_s: float) -> None:
        """No fault: the load goes on, and it is measured how fast a block arrives."""
        self.ledger.phase = CALM
        until = seconds() + hold_s
        for _ in range(3 if self._strict else 1):
            try:
                self._propagation += await self._load.propagation()
            except NOT_ANSWERED as error:
                self.ledger.breach("calm is calm", repr(error))
        await asyncio.sleep(max(0.0, until - seconds()))
        self._load.raise_if_broken()

    async def _scene(self, fault: Fault) -> None:
        hold_s = self._dice.uniform(*fault.hold_s) if self._strict else fault.hold_s[0]
        self.ledger.checked.pop(fault.name, None)
        before = len(self.ledger.breaches)
        self.ledger.phase, at = fault.name, self.ledger.now()
        with self.ledger.under(fault.name):
            async with fault.play(self._stage, self._dice):
                await asyncio.sleep(hold_s)
                held_s = self.ledger.now() - at
                scene_name, self.ledger.phase = fault.name, f"after {fault.name}"
        settled_s = await self._settled()
        await self._reckoning.reckon()
        scene = self._told(scene_name, at, held_s, settled_s)
        self._scenes.append(scene)
        self._judge(fault, scene)
        broken = len(self.ledger.breaches) - before
        self._say(
            f"{at:7.1f} s  {fault.name:<20} {held_s:5.1f} s  {scene.checks:5} checks, {scene.errors} failed,"
            f" {scene.within_deadline:7.2%} in time, slowest {scene.slowest_ms:6.0f} ms, well after {settled_s:4.1f} s"
            + (f"  BROKEN {broken}" if broken else "")
        )
        for each in self.ledger.breaches[before : before + 3]:
            self._say(f"    {each.promise} ({each.at} s, {each.during}): {each.what}")
        await self._calm(1.5 if self._strict else 0.5)

    async def _settled(self) -> float:
        """Wait until every part is well and nothing waits; how long it took (s)."""
        began, well = seconds(), 0
        ill: dict[str, object] = {}
        while well < 2:
            ill = await self._stage.ready()
            well = 0 if ill else well + 1
            if seconds() - began > SETTLED_S:
                self.ledger.breach("recovers", f"not well {SETTLED_S:.0f} s afterwards: {ill}")
                break
            await asyncio.sleep(0.1)
        return seconds() - began

    def _told(self, name: str, at: float, held_s: float, settled_s: float) -> Scene:
        checked = self.ledger.checked[name]
        return Scene(
            fault=name,
            at=round(at, 1),
            held_s=round(held_s, 1),
            settled_s=round(settled_s, 1),
            checks=checked.count,
            errors=len(checked.errors),
            degraded=checked.degraded,
            within_deadline=round(checked.within(DEADLINE_MS), 4),
            p99_ms=round(checked.quantile(0.99), 1),
            slowest_ms=round(max(checked.latencies, default=0.0), 1),
            what_failed=tuple(sorted(set(checked.errors))[:5]),
        )

    def _judge(self, fault: Fault, scene: Scene) -> None:
        """Whether checks were answered as promised during a fault of this kind."""
        if not self._strict:
            return
        if fault.out is not Out.PROCESS and scene.errors:
            self.ledger.breach("checks are answered", f"{fault.name}: {scene.errors} failed: {scene.what_failed}")
        within = self.ledger.checked[fault.name].within(DEADLINE_MS + SLACK_MS)
        if fault.out is Out.STORE and within < WITHIN:
            self.ledger.breach("checks are answered in time", f"{fault.name}: {within:.2%} within the deadline")

    async def _flushed_in_outage(self) -> None:
        """The documented loss: logins that only Valkey knew are gone, nothing else is, and students log in again."""
        self.ledger.phase = FLUSHED_IN_OUTAGE
        async with self._load.day.paused():
            await self._settled()  # what a slow moment has made wait is drained first
            stores, person = self._stage.stores, self._load.people["f1"]
            everyone = stores.processes("postgres")
            tell(everyone[:1], signal.SIGKILL)
            await gone(everyone)
            kept = len(self.ledger.entries)
            lost = [await self._load.login(person) for _ in range(3)]
            del self.ledger.entries[kept:]
            await stores.valkey.flush()
            await stores.start_postgres()
            person.tokens.clear()
            await self._settled()
            answered = [each for each in lost if each is not None]
            if len(answered) != len(lost) or not all(each["degraded"] for each in answered):
                self.ledger.breach("logins go on without PostgreSQL", str(lost))
            again = await self._load.login(person)
            if again is None or again["decision"] != "allow" or again["degraded"]:
                self.ledger.breach("a flushed student logs in again", str(again))
        await self._reckoning.reckon()

    async def _outcome(self, took_s: float, skipped: tuple[str, ...]) -> Outcome:
        self._leaks()
        metrics = await self._stage.metrics()
        for name in ("accessguard_activity_dropped_total", "accessguard_folds_dropped_total"):
            if metrics.get(name):
                self.ledger.breach("nothing is given up", f"{name} {metrics[name]}")
        spread = {f"p{int(share * 100)}": round(quantile(self._propagation, share), 2) for share in (0.5, 0.9, 0.99)}
        spread |= {"samples": len(self._propagation), "slowest": round(max(self._propagation, default=0.0), 2)}
        if self._strict and spread["p99"] >= PROPAGATION_MS:
            self.ledger.breach("a block is everywhere within 50 ms", str(spread))
        counts: dict[str, int] = {}
        for entry in self.ledger.entries:
            counts[entry.kind] = counts.get(entry.kind, 0) + 1
        return Outcome(
            seed=self._seed,
            seconds=round(took_s, 1),
            disk=self._stage.stores.small,
            scenes=tuple(self._scenes),
            skipped=skipped,
            acknowledged=counts,
            retried=sum(entry.tries > 1 for entry in self.ledger.entries),
            refused=dict(self.ledger.refused),
            undecided=dict(self.ledger.undecided),
            calm=self._told(CALM, 0.0, took_s, 0.0),
            propagation_ms=spread,
            first=self._rests[0] if self._rests else None,
            last=self._rests[-1] if self._rests else None,
            metrics={name: value for name, value in sorted(metrics.items()) if value},
            breaches=tuple(self.ledger.breaches),
        )

    def _leaks(self) -> None:
        """Compare what is in use after the first cycle with what is in the end."""
        first, last = self._rests[0], self._rests[-1]
        if last.memory_mb > first.memory_mb * MEMORY_GROWTH + MEMORY_MB:
            self.ledger.breach("nothing leaks", f"memory of a worker: {first.memory_mb} MB, then {last.memory_mb} MB")
        if last.descriptors > first.descriptors + DESCRIPTORS:
            self.ledger.breach("nothing leaks", f"open files: {first.descriptors}, then {last.descriptors}")
        if last.valkey > first.valkey + len(self._stage.hosts):
            self.ledger.breach("nothing leaks", f"connections to Valkey: {first.valkey}, then {last.valkey}")


async def play(
    seed: int,
    *,
    lasting_s: float,
    only: Sequence[str] = (),
    cluster: bool = False,
    strict: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Set up a stage, play on it and clear it away. `only` names faults; none: all of them."""
    faults = [each for each in (ON_A_CLUSTER if cluster else FAULTS) if not only or each.name in only]
    async with staged(cluster=cluster) as stage:
        return await Play(stage, seed, strict=strict, say=say).run(faults, lasting_s)
