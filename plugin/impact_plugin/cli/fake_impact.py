"""``impact-plugin fake-impact``: rehearse against a stand-in, since impact.com has no sandbox."""

import signal

import anyio

from impact_plugin.testing.fake_impact import FakeImpact


async def fake_impact(*, host: str = "127.0.0.1", port: int = 9099) -> None:
    """Serve a stand-in for both API hosts of impact.com until SIGINT or SIGTERM.

    Point the tracking and the API address of the plugin at the printed URL. What arrived is shown by GET /_calls,
    faults are scripted with PUT /_script. Neither asks for a password: leave the server on the loopback interface.

    Parameters
    ----------
    host
        Address to listen on.
    port
        TCP port to listen on; 0 takes a free one.

    """
    # Signals are held before the line is printed: whoever waits for the line may stop the server at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with FakeImpact(host=host, port=port) as impact:
            print(f"FakeImpact listens on {impact.url}", flush=True)
            async for _ in signals:
                return
