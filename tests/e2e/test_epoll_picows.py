"""picows on EpollLoop: aiofastnet's transports and asyncio's, in the clear and through TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_connect,
    ws_create_server,
)  # fmt: skip

from tradeback._fast.epoll import new_event_loop

CERTIFICATE = Path(__file__).parent.parent / "localhost.pem"
SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000, 3]


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Client(WSListener):
    """Sends payloads of growing sizes, each when the one before came back."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.BINARY, bytes(SIZES[0]))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
            return
        self.received.append(len(frame.get_payload_as_bytes()))
        if len(self.received) < len(SIZES):
            transport.send(WSMsgType.BINARY, bytes(SIZES[len(self.received)]))
        else:
            transport.send_close(WSCloseCode.OK)


def echo_listener(_: WSUpgradeRequest) -> WSListener:
    return Echo()


@pytest.mark.parametrize("spin", [0, -1], ids=["blocking", "spinning"])
@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("aiofastnet", [False, True], ids=["asyncio", "aiofastnet"])
def test_echo(aiofastnet: bool, tls: bool, spin: float) -> None:
    server_context = client_context = None
    if tls:
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(CERTIFICATE)
        client_context = ssl.create_default_context(cafile=CERTIFICATE)

    async def main() -> list[list[int]]:
        asyncio.get_running_loop().spin = spin  # type: ignore[attr-defined]
        server = await ws_create_server(
            echo_listener,
            "127.0.0.1",
            0,
            ssl=server_context,
            use_aiofastnet=aiofastnet,
            max_frame_size=1 << 21,
        )
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        connections = await asyncio.gather(
            *(
                ws_connect(Client, url, ssl_context=client_context, use_aiofastnet=aiofastnet)
                for _ in range(5)
            )
        )
        async with asyncio.timeout(60):
            await asyncio.gather(*(transport.wait_disconnected() for transport, _ in connections))
        server.close()
        await server.wait_closed()
        return [client.received for _, client in connections]

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(main()) == [SIZES] * 5
