"""``impact-plugin fake-impact``: rehearse against a stand-in, since impact.com has no sandbox."""

import signal

import anyio

from impact_plugin.testing.fake_impact import FakeImpact


async def fake_impact(*, host: str = "127.0.0.1", port: int = 9099) -> None:
    """Run a stand-in for impact.com, for rehearsals and load tests, until you interrupt it.

    Set the service's `impact.tracking_url` and `impact.api_url` to the URL that it prints. `GET /_calls` shows what
    arrived, and `PUT /_script` scripts faults. Neither asks for a password, so keep it on the loopback interface.

    ```sh
    impact-plugin fake-impact --port 9099
    ```

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one.
    """
    # Signals are caught before the URL is printed: a script that waits for the line may stop the stand-in at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with FakeImpact(host=host, port=port) as impact:
            print(f"FakeImpact listens on {impact.url}", flush=True)
            async for _ in signals:
                return
