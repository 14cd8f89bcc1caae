"""Recording from the simulated exchange: every message once, across cuts, and playable again."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from tests.consumer import SAFETY_SECONDS, Consumer
from tests.unit.test_sim_streams import ALL, config, run_messages
from tradeback.cli import main
from tradeback.errors import ExchangeError
from tradeback.exchange import capture
from tradeback.exchange.capture import Capture
from tradeback.exchange.recording import RecordingWriter, read_recording
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.exchange.sim.streams import StreamLimits


async def subscribed(sim: Sim, streams: int) -> None:
    async with asyncio.timeout(SAFETY_SECONDS):
        while sum(len(each.streams) for each in sim.hub.connections if not each.closing) < streams:
            await asyncio.sleep(0.01)


def test_a_recording_holds_every_message_and_plays_again(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl.gz"

    async def take() -> list[bytes]:
        async with Sim(config()) as sim:
            with RecordingWriter(path) as writer:
                taking = asyncio.create_task(Capture(sim.ws_url, ALL, writer, 1_000).run())
                await subscribed(sim, len(ALL))
                watching = await Consumer.open(f"{sim.ws_url}/stream?streams={'/'.join(ALL)}")
                await run_messages(sim, 1_000)
                await asyncio.wait_for(taking, SAFETY_SECONDS)
                await watching.until(lambda: len(watching.texts) >= 1_000)
                await watching.close()
            return watching.texts[:1_000]

    async def play(count: int) -> list[bytes]:
        async with Sim(SimConfig(replay=path, speed=0, paused=True)) as sim:
            consumer = await Consumer.open(f"{sim.ws_url}/stream?streams={'/'.join(ALL)}")
            sim.resume()
            await consumer.until(lambda: len(consumer.texts) == count)
            await consumer.close()
            return consumer.texts

    texts = asyncio.run(take())
    times = [received for received, _ in read_recording(path)]
    assert times == sorted(times)
    assert [text.encode() for _, text in read_recording(path)] == texts
    assert asyncio.run(play(1_000)) == texts


def test_a_cut_connection_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_BACKOFF_SECONDS", 0.01)

    async def scenario() -> None:
        async with Sim(config()) as sim:
            with RecordingWriter(tmp_path / "cut.jsonl") as writer:
                recorder = Capture(sim.ws_url, ["btcusdt@trade"], writer)
                taking = asyncio.create_task(recorder.run())
                for _ in range(3):
                    await subscribed(sim, 1)
                    await run_messages(sim, 100)
                    async with asyncio.timeout(SAFETY_SECONDS):
                        while writer.messages < sim.ledger.of("BTCUSDT").trade_count:
                            await asyncio.sleep(0.01)
                    sim.fault("cut")
                assert recorder.connects == 3
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
                assert writer.messages == sim.ledger.of("BTCUSDT").trade_count

    asyncio.run(scenario())


def test_a_refusal_ends_the_recording_with_a_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Sim(config(limits=StreamLimits(streams=2))) as sim:
            refusal = pytest.raises(ExchangeError, match=r"refused the streams.*at most 2")
            with RecordingWriter(tmp_path / "refused.jsonl") as writer, refusal:
                await asyncio.wait_for(Capture(sim.ws_url, ALL, writer).run(), SAFETY_SECONDS)

    asyncio.run(scenario())


def test_a_full_disk_ends_the_recording_with_a_sentence() -> None:
    async def scenario() -> None:
        async with Sim(config(paused=False)) as sim:
            writer = RecordingWriter(Path("/dev/full"))
            with pytest.raises(ExchangeError, match="cannot be written"):
                await asyncio.wait_for(Capture(sim.ws_url, ALL, writer).run(), SAFETY_SECONDS)
            with pytest.raises(ExchangeError, match="cannot be written"):
                writer.close()

    asyncio.run(scenario())


def invoke(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(main, ["record", *arguments], env=environment)


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    result = invoke(str(tmp_path / "a.jsonl"))
    assert result.exit_code == 1
    assert "no symbols to record" in result.output
    result = invoke(str(tmp_path / "none" / "a.jsonl"), "--symbol", "BTCUSDT")
    assert result.exit_code == 1
    assert "cannot be written" in result.output


def recorded_streams(path: Path) -> set[str]:
    """The streams of the messages that are in the file by now, but for one that is half written."""
    lines = path.read_bytes().rpartition(b"\n")[0].splitlines()
    return {orjson.loads(orjson.loads(line)["m"])["stream"] for line in lines}


@pytest.mark.parametrize("ending", ["messages", "signal"])
def test_the_command_records(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "a.jsonl"

    async def scenario() -> tuple[int | None, str]:
        async with Sim(config(paused=False)) as sim:
            program = (sys.executable, "-c", "from tradeback.cli import main; main()", "record", str(path))
            symbols = ("--symbol", "BTCUSDT", "--symbol", "ETHUSDT", "--type", "trade")
            limit = ("--messages", "50") if ending == "messages" else ()
            recorder = await asyncio.create_subprocess_exec(
                *program, "--url", sim.ws_url, *symbols, *limit, stdout=asyncio.subprocess.PIPE
            )
            if ending == "signal":
                await subscribed(sim, 2)
                async with asyncio.timeout(SAFETY_SECONDS):
                    # By then it has written some, of both.
                    while len(recorded_streams(path)) < 2:
                        await asyncio.sleep(0.01)
                recorder.send_signal(signal.SIGINT)
            output, _ = await asyncio.wait_for(recorder.communicate(), SAFETY_SECONDS)
            return recorder.returncode, output.decode()

    code, output = asyncio.run(scenario())
    recorded = list(read_recording(path))
    assert (code, output) == (0, f"{len(recorded)} messages recorded in {path}\n")
    assert len(recorded) == 50 or ending == "signal"
    assert recorded_streams(path) == {"btcusdt@trade", "ethusdt@trade"}
