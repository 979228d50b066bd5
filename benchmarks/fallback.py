"""The generator for machines without a C compiler: the options and the output of `load.c`, and a tenth of its speed."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from

import msgspec
import uvloop

from benchmarks.machine import cpu_ns
from benchmarks.model import Measure
from benchmarks.wire import MARK, Record

GRACE_S = 5
SAMPLE = 300


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The command line; times in seconds, `rate` in arrivals a second (0: a closed loop)."""

    connect: str
    requests: Path
    expect: tuple[str, ...]
    connections: int = 32
    seconds: float = 3
    warmup: float = 1
    rate: float = 0
    once: bool = False
    never: str = ""
    watch: tuple[int, ...] = ()


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must be: a status, and a text that its body holds at least `times`."""

    status: int
    times: int
    text: bytes

    def met(self, status: int, body: bytes, own: bytes) -> bool:
        """Whether the answer has the status, the text and the request's own text."""
        return status == self.status and (not self.text or body.count(self.text) >= self.times) and own in body


def expected(text: str) -> Expected:
    """Read `STATUS:TEXT` or `STATUS*N:TEXT`."""
    status, _, rest = text.partition(":")
    number, _, times = status.partition("*")
    return Expected(status=int(number), times=int(times or 1), text=rest.encode())


def read_records(path: Path) -> tuple[Record, ...]:
    """Read a file as `wire.save` writes it."""
    data, at = path.read_bytes(), 0
    records: list[Record] = []
    while at < len(data):
        length, kind, own = unpack_from("<III", data, at)
        at += 12
        records.append(
            Record(data=data[at : at + length], kind=kind, own=data[at + length : at + length + own].decode())
        )
        at += length + own
    return tuple(records)


class Run:
    """The state of one run, shared by its connections."""

    def __init__(self, options: Options, *, began: float) -> None:
        self.options = options
        self.expects = tuple(expected(text) for text in options.expect)
        self.measure_at = began + (0 if options.once else options.warmup)
        self.end_at = self.measure_at + options.seconds
        self.latencies: list[float] = []
        self.answers = [0] * len(self.expects)
        self.mismatches = [0] * len(self.expects)
        self.errors = 0
        self.unanswered = 0
        self.sample = ""
        records = read_records(options.requests)
        self._records: Iterator[Record] = iter(records) if options.once else itertools.cycle(records)
        self._stamps = itertools.count(time.time_ns())
        self._due = began

    def next_record(self) -> Record | None:
        """Return the next request, its mark replaced; None when there is none left."""
        record = next(self._records, None)
        if record is None or MARK.encode() not in record.data:
            return record
        stamp = f"{next(self._stamps) * 0x9E3779B97F4A7C15 % 2**64:016x}"
        return msgspec.structs.replace(record, data=record.data.replace(MARK.encode(), stamp.encode()))

    def next_due(self) -> float | None:
        """Return when the next request is due; None when the run is over."""
        if not self.options.rate:
            now = time.monotonic()
            return now if self.options.once or now <= self.end_at else None
        due = self._due
        self._due -= math.log(1 - random.random()) / self.options.rate
        return due if due <= self.end_at else None

    def judge(self, record: Record, since: float, status: int, body: bytes) -> None:
        """Count an answer that came for `record`, due at `since`."""
        at = time.monotonic()
        never = self.options.never.encode()
        if not self.expects[record.kind].met(status, body, record.own.encode()) or (never and never in body):
            self.mismatches[record.kind] += 1
            self.sample = self.sample or f"kind {record.kind}: {status} {body[:SAMPLE].decode(errors='replace')}"
        moment = since if self.options.rate else at
        if moment >= self.measure_at and (self.options.once or self.options.rate or at <= self.end_at):
            self.answers[record.kind] += 1
            self.latencies.append((at - since) * 1e6)


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to `host:port` or `unix:/path`."""
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one whole answer: its status and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    if status == 100:
        return await read_answer(reader)
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return status, await reader.readexactly(int(rest.partition(b"\r\n")[0])) if found else b""


async def ask(run: Run) -> None:
    """Send and receive on one connection until the run is over; a lost one is replaced."""
    reader, writer = await connect(run.options.connect)
    while (due := run.next_due()) is not None and (record := run.next_record()) is not None:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        try:
            writer.write(record.data)
            status, body = await read_answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            run.errors += 1
            reader, writer = await connect(run.options.connect)
            continue
        run.judge(record, due, status, body)
    writer.close()


async def carry_out(options: Options) -> Measure:
    """Run all connections, and take the processor time of what is watched over the measured part."""
    run = Run(options, began=time.monotonic())
    asking = [asyncio.create_task(ask(run)) for _ in range(options.connections)]
    await asyncio.sleep(max(0.0, run.measure_at - time.monotonic()))
    server, own = sum(cpu_ns(pid) for pid in options.watch), time.process_time()
    _, late = await asyncio.wait(asking, timeout=None if options.once else run.end_at + GRACE_S - time.monotonic())
    run.unanswered = len(late)
    for task in late:
        task.cancel()
    end = time.monotonic() if options.once or options.rate else run.end_at
    return _measure(
        run,
        seconds=end - run.measure_at,
        server_us=(sum(cpu_ns(pid) for pid in options.watch) - server) / 1000,
        own_us=(time.process_time() - own) * 1e6,
    )


def _measure(run: Run, *, seconds: float, server_us: float, own_us: float) -> Measure:
    ordered = sorted(run.latencies)
    return Measure(
        generator="python",
        requests=len(ordered),
        seconds=seconds,
        rps=len(ordered) / seconds,
        errors=run.errors,
        unanswered=run.unanswered,
        mismatches=sum(run.mismatches),
        reconnects=run.errors,
        p50_us=_percentile(ordered, 0.5),
        p90_us=_percentile(ordered, 0.9),
        p99_us=_percentile(ordered, 0.99),
        p999_us=_percentile(ordered, 0.999),
        max_us=_percentile(ordered, 1),
        server_cpu_us=server_us,
        generator_cpu_us=own_us,
        answers_by_kind=tuple(run.answers),
        mismatches_by_kind=tuple(run.mismatches),
        sample=run.sample,
    )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def read_options(arguments: list[str]) -> Options:
    """Read the command line of `load.c`."""
    parser = argparse.ArgumentParser()
    for name in ("connect", "requests", "connections", "seconds", "warmup", "rate", "cpu", "never"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--expect", action="append", default=[])
    parser.add_argument("--watch", action="append", default=[])
    parser.add_argument("--once", action="store_true")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    if core := given.pop("cpu", None):
        os.sched_setaffinity(0, {int(core)})
    return msgspec.convert(given, Options, strict=False, dec_hook=lambda kind, value: kind(value))


def main() -> None:
    """Run, and print the measure as JSON."""
    measure = uvloop.run(carry_out(read_options(sys.argv[1:])))
    sys.stdout.write(msgspec.json.encode(measure).decode())


if __name__ == "__main__":
    main()
